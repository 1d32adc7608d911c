"""What both answers of a pair begin with is not trained on."""

import dataclasses
import math

import pytest
import torch

from adapt.models.continued import continued
from adapt.models.prompts import end_tokens
from adapt.pairs.beginning import begun_tokens
from adapt.preference.collate import part
from adapt.preference.prefix import twice
from adapt.preference.trainer import Weights
from tests.support import tiny_world
from tests.support.preference_rows import (
    adapt_trainer,
    batch_of,
    collator,
    data_of,
    gradients,
    pairs,
    rows,
)

BEGUN = ("a red car,", "no,")


def begun_pairs(count: int = 4):
    """Those of `preference_rows`, both answers behind the same words."""
    made = []
    for i, pair in enumerate(pairs(count)):
        prefix = BEGUN[i % 2]
        both = {side: f"{prefix} {getattr(pair, side)}" for side in ("chosen", "rejected")}
        made.append(dataclasses.replace(pair, prefix=prefix, **both))
    return made


def test_the_mask_begins_behind_the_prefix_and_all_else_stays():
    made = [*data_of(begun_pairs())]
    batch = collator()(made)
    plain = collator()([{**row, "prefix": ""} for row in made])
    assert batch.keys() == plain.keys()
    for name in batch.keys() - {"completion_mask"}:
        assert batch[name] == plain[name] if name == "ids" else batch[name].equal(plain[name]), name
    tokenizer = tiny_world.processor().tokenizer
    for i in range(8):
        gone = plain["completion_mask"][i] - batch["completion_mask"][i]
        ids = batch["input_ids"][i][gone > 0].tolist()
        assert ids == tokenizer(BEGUN[i % 2], add_special_tokens=False)["input_ids"]
        first = int(plain["completion_mask"][i].argmax())
        assert gone.nonzero()[:, 0].tolist() == [*range(first, first + len(ids))]
    # Guided pictures stand behind the same prompts.
    assert part(batch, guided=True)["completion_mask"].equal(batch["completion_mask"])


def test_a_sequence_is_the_one_whose_prompt_has_the_prefix():
    """Whether words are the prompt's or the answer's beginning shows in the mask alone."""
    prompts = {"input_ids": torch.tensor([[7, 8, 9]]), "attention_mask": torch.ones(1, 3).long()}
    longer = {name: torch.cat([one, one[:, :1]], 1) for name, one in prompts.items()}
    as_answer = continued(prompts, [[7, 4, 5]], 0, begun=[1])
    as_prompt = continued(longer, [[4, 5]], 0)
    assert as_answer.keys() == as_prompt.keys()
    for name, value in as_answer.items():
        assert value.equal(as_prompt[name])


def by_hand(model, batch, references, beta: float) -> torch.Tensor:
    """DPO + SFT of what stands behind the prefixes, from the model's own logits."""
    inputs = {k: v for k, v in twice(batch).items() if not k.startswith(("ref_", "completion"))}
    logits = model(**inputs, use_cache=False).logits[:, :-1]
    own = logits.log_softmax(-1).gather(-1, batch["input_ids"][:, 1:, None])[:, :, 0]
    sums, means = [], []
    for row, mask in zip(own, batch["completion_mask"][:, 1:], strict=True):
        sums.append(row[mask > 0].sum())
        means.append(row[mask > 0].mean())
    B = len(sums) // 2
    margins = torch.stack(sums[:B]) - references[0] - torch.stack(sums[B:]) + references[1]
    dpo = -torch.nn.functional.logsigmoid(beta * margins).mean()
    return dpo - torch.stack(means[:B]).mean()


def test_loss_and_gradients_are_of_what_stands_behind_the_prefix(base, tmp_path):
    weights = Weights(dpo=1, sft=1)
    ours = adapt_trainer(base, tmp_path, weights, data=data_of(begun_pairs()))
    ours.model.train()
    inputs = batch_of(ours)
    loss = ours.compute_loss(ours.model, inputs)
    loss.backward()
    got = gradients(ours)
    batch = part(inputs, guided=False)
    references = (batch["ref_chosen_logps"], batch["ref_rejected_logps"])
    ours.model.zero_grad()
    expected = by_hand(ours.model, batch, references, beta=0.5)
    expected.backward()
    torch.testing.assert_close(loss.detach(), expected.detach(), atol=1e-5, rtol=1e-5)
    for name, gradient in gradients(ours).items():
        largest = max(1.0, gradient.abs().max().item())
        torch.testing.assert_close(got[name], gradient, atol=1e-5 * largest, rtol=1e-4, msg=name)


def test_the_prefix_takes_its_own_likelihood_out_of_the_reference(base, tmp_path):
    """log p(rest | prompt, prefix) = log p(answer | prompt) - log p(prefix | prompt)."""
    weights, made = Weights(dpo=1), begun_pairs()
    plain = [dataclasses.replace(pair, prefix="") for pair in made]
    begun, whole = (
        adapt_trainer(base, tmp_path / name, weights, data=data_of(data))
        for name, data in (("begun", made), ("whole", plain))
    )
    model, ends = tiny_world.model(), end_tokens(tiny_world.model(), tiny_world.processor())
    batch = collator()([*data_of(plain)])
    inputs = {k: batch[k] for k in ("input_ids", "attention_mask")}
    pictures = torch.cat([batch["pixel_values"]] * 2)
    with torch.no_grad():
        logits = model(**inputs, pixel_values=pictures).logits[:, :-1].log_softmax(-1)
    own = logits.gather(-1, batch["input_ids"][:, 1:, None])[:, :, 0]
    for i, row in enumerate(zip(begun.train_dataset, whole.train_dataset, strict=True)):
        for half, name in enumerate(("ref_chosen_logps", "ref_rejected_logps")):
            side = ("chosen", "rejected")[half]
            both = (made[i].chosen, made[i].rejected)
            count = begun_tokens(tiny_world.processor(), made[i].prefix, both, ends)
            start = int(batch["completion_mask"][4 * half + i].argmax()) - 1
            prefix = own[4 * half + i, start : start + count].sum().item()
            assert row[0][name] == pytest.approx(row[1][name] - prefix, abs=1e-4), (i, side)
            assert not math.isclose(row[0][name], row[1][name], abs_tol=1e-3)


def test_rows_without_the_field_are_trained_whole():
    made = rows()
    for row in made:
        del row["prefix"]
    assert collator()(made)["completion_mask"].equal(collator()(rows())["completion_mask"])
