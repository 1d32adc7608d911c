"""Weights of the words that decide: TRL's numbers at 1, a hand count at others."""

import dataclasses
from typing import Any

import pytest
import torch

from adapt.models.load import load_model
from adapt.preference.collate import REFERENCE, TOKEN_WEIGHTS, part
from adapt.preference.losses import dpo
from adapt.preference.prefix import twice
from adapt.preference.spans import token_weights, weighed
from adapt.preference.trainer import Weights
from tests.support import tiny_world
from tests.support.preference_rows import (
    adapt_trainer,
    changed,
    collator,
    data_of,
    gradients,
    loss_of,
    pairs,
    spanned,
)

DPO = Weights(dpo=1.0)
WEIGHT = 4.0


BY_HAND = {
    # a red car , a blue house and a green tree . </s>
    tiny_world.ANSWERS[0]: [1, 4, 4, 1, 1, 4, 4, 1, 1, 1, 1, 1, 1],
    # no , there is no car . </s>
    tiny_world.ANSWERS[1]: [4, 1, 1, 1, 1, 1, 1, 1],
}
"""The weights of the answers' tokens in `rows`."""


def rows(count: int = 4) -> Any:
    return data_of(spanned(pairs(count)))


# ---- the weights ---------------------------------------------------------------------------------


def test_tokens_that_touch_a_span_are_weighed():
    # Two sequences of prompt and answer, one padded; the last token of each ends its answer.
    mask = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]])
    ranges = [[(0, 1), (1, 5), (5, 5)], [(0, 3), (3, 3)]]
    weights = token_weights(mask, ranges, [((2, 5),), ()], 3.0)
    assert weights.tolist() == [[1, 1, 1, 3, 1], [1] * 5]


def test_a_batch_has_them_at_its_answers():
    made = [*rows(2)]
    assert TOKEN_WEIGHTS not in collator()(made)
    batch = collator(span_weight=WEIGHT)(made)
    texts = [row[side] for side in ("chosen", "rejected") for row in made]
    for number, text in enumerate(texts):
        is_answer = batch["completion_mask"][number] > 0
        assert batch[TOKEN_WEIGHTS][number][is_answer].tolist() == BY_HAND[text]
        assert batch[TOKEN_WEIGHTS][number][~is_answer].eq(1).all()


def test_guided_answers_that_are_other_ones_have_their_own():
    made = [*rows(2)]
    guided = part(collator(span_weight=WEIGHT, form="same_text")(made), guided=True)
    for number, row in enumerate([*made, *made]):
        weights = guided[TOKEN_WEIGHTS][number][guided["completion_mask"][number] > 0]
        assert weights.tolist() == BY_HAND[row["chosen"]]


# ---- the loss ------------------------------------------------------------------------------------


def test_at_1_every_number_stays_to_the_bit(base, tmp_path):
    weights = Weights(vag=1.0, dpo=1.0, sft=1.0, attn=1.0)
    plain = adapt_trainer(base, tmp_path / "a", weights, data=data_of(pairs(4)))
    spans = adapt_trainer(base, tmp_path / "b", weights, data=rows())
    first, second = loss_of(plain), loss_of(spans)
    assert first.equal(second)
    first.backward()
    second.backward()
    for name, gradient in gradients(plain).items():
        assert gradient.equal(gradients(spans)[name]), name
    assert plain._metrics == spans._metrics
    names = [[path.name for path in (tmp_path / one / "reference").iterdir()] for one in "ab"]
    assert sorted(names[0]) == sorted(names[1]), "kept under the keys of before"


def by_hand(model: Any, batch: dict[str, Any]) -> torch.Tensor:
    """sum_t w_t log pi_t of the model's own logits, [2B], with weights from the texts."""
    inputs = {k: v for k, v in twice(batch).items() if k not in (TOKEN_WEIGHTS, *REFERENCE)}
    is_answer, ids = inputs.pop("completion_mask"), inputs["input_ids"]
    logits = model(**inputs, use_cache=False).logits[:, :-1].float().log_softmax(-1)
    log_probs = logits.gather(-1, ids[:, 1:, None])[..., 0]
    texts = [row[side] for side in ("chosen", "rejected") for row in rows()]
    return torch.stack(
        [
            (row[answered] * torch.tensor(BY_HAND[text], dtype=torch.float32)).sum()
            for row, answered, text in zip(log_probs, is_answer[:, 1:] > 0, texts, strict=True)
        ]
    )


def test_other_weights_are_a_hand_count(base, tmp_path):
    trainer = adapt_trainer(base, tmp_path, DPO, data=rows(), span_weight=WEIGHT)
    batch = part(trainer.data_collator([*trainer.train_dataset]), guided=False)
    with torch.no_grad():
        reference = by_hand(load_model(base), batch)
        policy = by_hand(trainer.model.eval(), batch)
    for name, expected in zip(REFERENCE, reference.chunk(2), strict=True):
        torch.testing.assert_close(batch[name], expected, atol=1e-4, rtol=1e-5)
    expected, metrics = dpo(*policy.chunk(2), *reference.chunk(2), beta=0.5)
    got = loss_of(trainer)
    torch.testing.assert_close(got, expected, atol=1e-4, rtol=1e-5)
    assert abs((got - loss_of(adapt_trainer(base, tmp_path, DPO))).item()) > 1e-2
    # What is plotted is of the same margins.
    noted = trainer._metrics["train"]
    for name, key in (("margins", "rewards/margins"), ("displacement", "chosen/displacement")):
        assert noted[key][0] == pytest.approx(metrics[name].item(), abs=1e-3)


def test_guided_margins_are_weighed_as_plain_ones(base, tmp_path):
    same = loss_of(adapt_trainer(base, tmp_path, DPO, data=rows(), span_weight=WEIGHT))
    vag = adapt_trainer(base, tmp_path, Weights(vag=1.0), data=rows(), span_weight=WEIGHT)
    torch.testing.assert_close(loss_of(vag, equal_images=True), same, atol=1e-6, rtol=2e-6)


def test_sft_and_supervision_are_not_weighed(base, tmp_path):
    weights = Weights(sft=1.0, attn=1.0)
    first, second = (
        loss_of(adapt_trainer(base, tmp_path, weights, data=rows(), span_weight=one))
        for one in (1.0, WEIGHT)
    )
    assert first.equal(second)


@dataclasses.dataclass
class Said:
    log_probs: torch.Tensor


def test_every_token_gets_the_gradient_of_its_weight():
    torch.manual_seed(0)
    weights = torch.where(torch.rand(4, 6) < 0.5, 4.0, 1.0).double()
    log_probs = -torch.rand(4, 5).double().requires_grad_()

    def loss(log_probs: torch.Tensor) -> torch.Tensor:
        chosen, rejected = weighed(Said(log_probs), weights).log_probs.sum(1).chunk(2)
        return dpo(chosen, rejected, torch.zeros(2), torch.zeros(2), beta=0.5)[0]

    assert torch.autograd.gradcheck(loss, log_probs)
    # d L / d log pi_t = -/+ w_t beta sigmoid(-margin) / B, chosen and rejected.
    (gradient,) = torch.autograd.grad(loss(log_probs), log_probs)
    total = (log_probs * weights[:, 1:]).sum(1)
    scale = 0.5 * torch.sigmoid(-0.5 * (total[:2] - total[2:])) / 2
    expected = weights[:, 1:] * torch.cat([-scale, scale])[:, None]
    torch.testing.assert_close(gradient, expected)


# ---- the reference -------------------------------------------------------------------------------


def test_weighted_references_have_a_key_of_their_own(base, tmp_path):
    def files(data: Any, weight: float) -> int:
        adapt_trainer(base, tmp_path, Weights(vag=1.0, dpo=1.0), data=data, span_weight=weight)
        return len([*(tmp_path / "reference").iterdir()])

    other = data_of([changed(row, rejected_spans=((0, 1),)) for row in spanned(pairs(4))])
    counts = [
        *(files(rows(), weight) for weight in (1.0, 4.0, 4.0, 2.0)),
        *(files(other, weight) for weight in (4.0, 1.0)),
    ]
    assert counts == [2, 4, 4, 6, 8, 8]
