"""The trainer is TRL's where it should be: loss and gradients on the same batch, and VAG-DPO with
equal images.
"""

from typing import Any

import pytest
import torch
from trl import DPOTrainer

from adapt.models.continued import response_rows
from adapt.preference.build import arguments
from adapt.preference.collate import IDS, part
from adapt.preference.losses import anchored, dpo, sft
from adapt.preference.prefix import twice
from adapt.preference.trainer import Weights
from tests.support.preference_rows import (
    NONE,
    adapt_trainer,
    batch_of,
    changed,
    data_of,
    gradients,
    loss_of,
    pairs,
    settings,
    trl_trainer,
)

MPO = {"sigmoid": 0.8, "bco_pair": 0.2}


@pytest.mark.parametrize("form", ["sigmoid", "ipo", "hinge", MPO])
def test_without_extra_terms_loss_and_gradients_equal_trl(base, tmp_path, form):
    """Also of several forms at once, as TRL adds them up."""
    made = arguments(settings(loss_type=form), torch.device("cpu"), tmp_path)
    mix = dict(loss_type=made.loss_type, loss_weights=made.loss_weights)
    assert mix["loss_type"] == ([form] if isinstance(form, str) else ["sigmoid", "bco_pair"])
    trl = trl_trainer(base, tmp_path, **mix)
    ours = adapt_trainer(base, tmp_path, Weights(**{**NONE, "dpo": 1.0}), **mix)
    expected, got = loss_of(trl), loss_of(ours)
    assert abs(expected.item() - 0.6931) > 1e-2, "the policy must differ from the reference"
    torch.testing.assert_close(got, expected, atol=1e-6 * max(1.0, expected.item()), rtol=0)
    expected.backward()
    got.backward()
    for name, gradient in gradients(trl).items():
        largest = max(1.0, gradient.abs().max().item())
        torch.testing.assert_close(
            gradients(ours)[name], gradient, atol=1e-6 * largest, rtol=1e-5, msg=name
        )


def test_our_equations_of_dpo_and_sft_are_trls(base, tmp_path):
    trl = trl_trainer(base, tmp_path)
    batch = batch_of(trl)
    log_probs, mask = trl_log_probs(trl, batch), batch["completion_mask"][:, 1:] > 0
    ours, metrics = dpo(
        *log_probs.sum(1).chunk(2), *trl.compute_ref_log_probs(trl.ref_model, batch), beta=0.5
    )
    torch.testing.assert_close(ours, trl.compute_loss(trl.model, batch), atol=1e-6, rtol=0)
    for name, key in (("margins", "rewards/margins"), ("accuracies", "rewards/accuracies")):
        assert metrics[name].item() == pytest.approx(trl._metrics["eval"][key][-1], abs=1e-6)
    # TRL's mean is over tokens, ours over answers: of one answer they are the same.
    trl.loss_types, trl.loss_weights = ["sft"], [1.0]
    one = {key: value[[0, 4]] for key, value in batch.items()}
    torch.testing.assert_close(
        sft(log_probs[:1], mask[:1]), trl.compute_loss(trl.model, one), atol=1e-6, rtol=0
    )


def test_a_mix_is_the_weighted_sum_of_its_forms(base, tmp_path):
    """And a weight of 1 changes no bit of one form alone."""
    alone = {
        form: loss_of(trl_trainer(base, tmp_path, loss_type=[form])) for form in ("sigmoid", *MPO)
    }
    dpo_alone = Weights(**{**NONE, "dpo": 1.0})
    mixed = adapt_trainer(base, tmp_path, dpo_alone, loss_type=[*MPO], loss_weights=[*MPO.values()])
    expected = sum(weight * alone[form] for form, weight in MPO.items())
    torch.testing.assert_close(loss_of(mixed), expected, atol=1e-6, rtol=1e-6)
    one = adapt_trainer(base, tmp_path, dpo_alone, loss_type=["sigmoid"], loss_weights=[1.0])
    plain = adapt_trainer(base, tmp_path, dpo_alone)
    assert loss_of(one).equal(loss_of(plain))


def test_an_anchored_reward_is_of_trls_log_probabilities(base, tmp_path):
    trl = trl_trainer(base, tmp_path)
    batch = batch_of(trl)
    reference = trl.compute_ref_log_probs(trl.ref_model, batch)[0]
    expected = anchored(trl_log_probs(trl, batch).sum(1).chunk(2)[0], reference, beta=0.5)
    ours = adapt_trainer(base, tmp_path, Weights(anchor=1.0))
    torch.testing.assert_close(loss_of(ours), expected, atol=1e-6, rtol=1e-6)
    assert ours._metrics["train"]["anchor/loss"] == [pytest.approx(expected.item(), abs=1e-6)]
    assert "anchor/loss" not in metrics_of(adapt_trainer(base, tmp_path, Weights(sft=1.0)))


def metrics_of(trainer: Any) -> dict[str, list[float]]:
    loss_of(trainer)
    return trainer._metrics["train"]


@pytest.mark.parametrize("form", ["paper", "same_text", "same_image"])
def test_guidance_in_every_form_is_trls_dpo_of_its_two_halves(base, tmp_path, form):
    trl = trl_trainer(base, tmp_path)
    ours = adapt_trainer(base, tmp_path, Weights(vag=1.0), form=form)
    inputs = part(batch_of(ours), guided=True)
    inputs = {k: v for k, v in inputs.items() if not k.startswith("ref_")}
    expected, got = trl.compute_loss(trl.model, inputs), loss_of(ours)
    torch.testing.assert_close(got, expected, atol=1e-6, rtol=1e-5)
    expected.backward()
    got.backward()
    for name, gradient in gradients(trl).items():
        torch.testing.assert_close(gradients(ours)[name], gradient, atol=1e-5, rtol=1e-4, msg=name)
    assert ("vag/flat_anchors" in ours._metrics["train"]) == (form == "paper")


def test_without_noise_the_same_text_teaches_nothing_and_the_same_image_is_dpo(base, tmp_path):
    text = adapt_trainer(base, tmp_path, Weights(vag=1.0), form="same_text", noise=0.0)
    loss = loss_of(text)
    assert loss.item() == pytest.approx(0.6931472, abs=1e-6)
    loss.backward()
    noisy = adapt_trainer(base, tmp_path, Weights(vag=1.0), form="same_text", noise=0.3)
    loss_of(noisy).backward()
    left, usual = (max(g.abs().max() for g in gradients(one).values()) for one in (text, noisy))
    assert left < 1e-5 * usual
    image = adapt_trainer(base, tmp_path, Weights(vag=1.0), form="same_image", noise=0.0)
    plain = adapt_trainer(base, tmp_path, Weights(dpo=1.0))
    torch.testing.assert_close(loss_of(image), loss_of(plain), atol=1e-6, rtol=2e-6)


def test_guidance_by_the_same_text_sees_no_rejected_answer(base, tmp_path):
    made = pairs(4)
    others = [changed(row, rejected=row.chosen + " and no more") for row in made]
    losses = [
        loss_of(
            adapt_trainer(base, tmp_path, Weights(vag=1.0), form="same_text", data=data_of(rows))
        )
        for rows in (made, others)
    ]
    torch.testing.assert_close(*losses, atol=1e-6, rtol=1e-6)


def trl_log_probs(trl: DPOTrainer, batch: dict[str, Any]) -> torch.Tensor:
    labels = batch["input_ids"].masked_fill(batch["completion_mask"] == 0, -100)
    known = {key: value for key, value in batch.items() if key != "completion_mask"}
    return trl.model(**known, labels=labels, fused_lm_head=True).log_probs


def test_vag_with_equal_images_equals_dpo(base, tmp_path):
    same = loss_of(adapt_trainer(base, tmp_path, Weights(**{**NONE, "dpo": 1.0})))
    vag = adapt_trainer(base, tmp_path, Weights(**{**NONE, "vag": 1.0}))
    torch.testing.assert_close(loss_of(vag, equal_images=True), same, atol=1e-6, rtol=2e-6)
    assert abs((loss_of(vag) - same).item()) > 1e-3, "guided images must matter"


def test_rejected_answers_with_their_own_pictures_are_computed_apart(base, tmp_path, capsys):
    """As TRL's own loss on two rows of a pair, each with its picture."""
    made = pairs(4)
    others = [changed(row, rejected_images=made[(i + 1) % 4].images) for i, row in enumerate(made)]
    weights = Weights(**{**NONE, "dpo": 1.0, "sft": 0.0})
    ours = adapt_trainer(base, tmp_path, weights, data=data_of(others))
    same = adapt_trainer(base, tmp_path, weights, data=data_of(made))
    assert "computed for each answer: a rejected answer has pictures" in capsys.readouterr().err
    trl = trl_trainer(base, tmp_path)
    inputs = twice(part(ours.data_collator([*ours.train_dataset]), guided=False))
    inputs = {k: v for k, v in inputs.items() if not k.startswith("ref_")}
    torch.testing.assert_close(
        loss_of(ours), trl.compute_loss(trl.model, inputs), atol=1e-6, rtol=1e-5
    )
    assert abs((loss_of(ours) - loss_of(same)).item()) > 1e-4, "the pictures must matter"
    # Supervision and SFT look at the chosen half, whose pictures are the same.
    chosen = Weights(**{**NONE, "sft": 1.0, "attn": 1.0})
    one, two = (
        loss_of(adapt_trainer(base, tmp_path, chosen, data=data_of(rows)))
        for rows in (made, others)
    )
    torch.testing.assert_close(one, two)
    loss_of(
        adapt_trainer(
            base, tmp_path, Weights(vag=1.0, dpo=1.0, sft=1.0, attn=1.0), data=data_of(others)
        )
    ).backward()


def test_terms_add_up_with_their_weights(base, tmp_path):
    one = {
        term: loss_of(adapt_trainer(base, tmp_path, Weights(**{**NONE, term: 1.0})))
        for term in NONE
    }
    each = {"vag": 0.5, "dpo": 0.25, "sft": 2.0, "anchor": 0.75, "attn": 3.0}
    total = loss_of(adapt_trainer(base, tmp_path, Weights(**each)))
    expected = sum(weight * one[term] for term, weight in each.items())
    torch.testing.assert_close(total, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("form", ["paper", "same_text"])
def test_a_step_by_passes_has_the_gradients_of_the_whole_loss(base, tmp_path, form):
    weights = Weights(vag=0.5, dpo=0.25, sft=2.0, anchor=0.75, attn=3.0)
    whole = adapt_trainer(base, tmp_path, weights, form=form)
    stepped = adapt_trainer(base, tmp_path, weights, form=form)
    loss = loss_of(whole)
    loss.backward()
    stepped.current_gradient_accumulation_steps = 1
    torch.testing.assert_close(
        stepped.training_step(stepped.model, batch_of(stepped)), loss.detach()
    )
    for name, gradient in gradients(whole).items():
        torch.testing.assert_close(
            gradients(stepped)[name], gradient, atol=1e-5, rtol=1e-4, msg=name
        )


def test_without_same_image_dpo_the_rejected_half_is_not_computed(base, tmp_path, monkeypatch):
    batches: list[int] = []
    trainer = adapt_trainer(base, tmp_path, Weights(vag=1.0, dpo=0.0, sft=1.0, attn=0.1))
    forward = trainer.model.forward
    monkeypatch.setattr(
        trainer.model,
        "forward",
        lambda **kwargs: (batches.append(len(kwargs["input_ids"])), forward(**kwargs))[1],
    )
    loss_of(trainer)
    assert batches == [4, 8]


def test_every_term_tells_what_one_wants_to_plot(base, tmp_path):
    trainer = adapt_trainer(base, tmp_path, Weights(vag=1.0, dpo=1.0, sft=1.0, attn=1.0))
    loss_of(trainer)
    metrics = trainer._metrics["train"]
    assert {
        "rewards/margins",
        "rewards/accuracies",
        "logps/chosen",
        "vag/margins",
        "vag/accuracies",
        "vag/displaced",
        "vag/flat_anchors",
        "chosen/displacement",
        "chosen/displaced",
        "sft/loss",
        "attn/mass",
        "attn/amc",
        "attn/mass_clipped",
        "attn/empty",
    } < metrics.keys()
    rewards, beta = metrics["rewards/chosen"][0], 0.5
    assert metrics["chosen/displacement"][0] == pytest.approx(rewards / beta, abs=1e-4)


def test_attention_supervision_reaches_queries_and_keys_and_nothing_behind_the_last_map(
    base, tmp_path
):
    trainer = adapt_trainer(base, tmp_path, Weights(**{**NONE, "attn": 1.0}))
    loss_of(trainer).backward()
    prefix = "model.language_model.layers.2."
    named = gradients(trainer).items()
    last = {n.removeprefix(prefix): g.abs().sum() for n, g in named if n.startswith(prefix)}
    assert last["self_attn.q_proj.weight"] > 0 and last["self_attn.k_proj.weight"] > 0
    assert not any(total > 0 for name, total in last.items() if "v_proj" in name or "mlp" in name)
    # Data-parallel training waits for every parameter: they take part, with gradients of 0.
    frozen = [name for name, p in trainer.model.named_parameters() if p.grad is None]
    assert not any("language_model.layers" in name for name in frozen)


def test_gradient_checkpointing_changes_nothing(base, tmp_path):
    weights = Weights(vag=1.0, dpo=0.5, sft=1.0, attn=1.0)
    plain = adapt_trainer(base, tmp_path, weights)
    checkpointed = adapt_trainer(base, tmp_path, weights)
    checkpointed.model.activation_checkpointing_enable(
        activation_checkpointing_kwargs={"use_reentrant": False}
    )
    first, second = loss_of(plain), loss_of(checkpointed)
    torch.testing.assert_close(second, first)
    first.backward()
    second.backward()
    for name, gradient in gradients(plain).items():
        torch.testing.assert_close(gradients(checkpointed)[name], gradient, msg=name)


def test_epochs_are_whole_steps(base, tmp_path):
    trainer = adapt_trainer(base, tmp_path, Weights(**{**NONE, "sft": 1.0}), size=3)
    batches = [batch[IDS] for batch in trainer.get_train_dataloader()]
    assert [len(batch) for batch in batches] == [3], "the fourth row waits for another epoch"


def test_rows_that_produce_the_response():
    positions = response_rows(torch.tensor([[0, 0, 1, 1, 1], [0, 1, 1, 0, 0]]))
    assert positions.tolist() == [[1, 2, 3], [0, 1, -1]]
