"""The kept pass: transformers' own loss of the same rows, nothing for an untouched model, and no
change to anything where it has no weight.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from adapt.models.load import load_model
from adapt.preference import teacher
from adapt.preference.losses import Weights
from adapt.preference.rehearsal import Rehearsal
from tests.support.preference_rows import (
    NONE,
    adapt_trainer,
    batch_of,
    gradients,
    loss_of,
    plain_rows,
    rehearsal,
)

KEPT = Weights(keep=1.0)


@pytest.fixture(scope="module")
def known(tmp_path_factory) -> Path:
    """Where this file's trainers keep what they have worked out."""
    return tmp_path_factory.mktemp("known")


def trainer_of(base: str, known: Path, made: Rehearsal | None, weights: Weights, **options: Any):
    return adapt_trainer(base, known, weights, rehearsal=made, **options)


def each(made: Rehearsal) -> Iterator[dict[str, torch.Tensor]]:
    """The rows of the first step, a batch each: nothing is padded."""
    return (made.batch([place]) for place in made.places(0, 0, 1))


def test_sft_is_transformers_own_loss_of_the_same_rows(base, known):
    made = rehearsal(plain_rows(9))
    ours = trainer_of(base, known, made, KEPT)
    loss, theirs = loss_of(ours), []
    for batch in each(made):
        is_answer = batch.pop("completion_mask") > 0
        labels = batch["input_ids"].masked_fill(~is_answer, -100)
        theirs.append(ours.model(**batch, labels=labels).loss)
    torch.testing.assert_close(loss, torch.stack(theirs).mean(), atol=1e-6, rtol=1e-6)
    assert ours._metrics["train"]["keep/loss"] == [pytest.approx(loss.item())]


def test_kl_is_torchs_and_its_gradient_reaches_the_policy_alone(base, known):
    made, reference = rehearsal(plain_rows(9), form="kl"), load_model(base)
    ours = trainer_of(base, known, made, KEPT)
    loss, theirs = loss_of(ours), []
    for batch in each(made):
        is_producer = (batch.pop("completion_mask") > 0).roll(-1, 1)[0]
        (own, other) = (m(**batch).logits[0, is_producer] for m in (ours.model, reference))
        theirs.append(F.kl_div(own.log_softmax(-1), other.softmax(-1), reduction="batchmean"))
    torch.testing.assert_close(loss, torch.stack(theirs).mean(), atol=1e-6, rtol=1e-5)
    loss.backward()
    got = gradients(ours)
    ours.model.zero_grad()
    torch.stack(theirs).mean().backward()
    for name, gradient in gradients(ours).items():
        torch.testing.assert_close(got[name], gradient, atol=1e-6, rtol=1e-4, msg=name)


def test_an_untouched_policy_has_no_kl(base, known):
    ours = trainer_of(base, known, rehearsal(plain_rows(9), form="kl"), KEPT)
    ours.model.load_state_dict(load_model(base).state_dict())
    loss = loss_of(ours)
    loss.backward()
    assert abs(loss.item()) < 1e-6, "0 but for the rounding of batches of other sizes"
    assert max(gradient.abs().max() for gradient in gradients(ours).values()) < 1e-6


def test_what_the_base_says_is_worked_out_once(base, tmp_path, monkeypatch):
    made = rehearsal(plain_rows(9), form="kl")
    first = loss_of(trainer_of(base, tmp_path, made, KEPT))
    monkeypatch.setattr(teacher, "in_batches", lambda *_: pytest.fail("worked out again"))
    monkeypatch.setattr("adapt.preference.reference._compute", lambda *_: pytest.fail("again"))
    assert loss_of(trainer_of(base, tmp_path, made, KEPT)).equal(first)
    monkeypatch.undo()
    files = {*(tmp_path / "reference").iterdir()}
    # Another row, another base: others are worked out, and what is no such file is not believed.
    trainer_of(base, tmp_path, rehearsal(plain_rows(8), form="kl"), KEPT)
    trainer_of(base, tmp_path, made, KEPT, digest="other")
    assert len({*(tmp_path / "reference").iterdir()} - files) == 3  # the other base's pairs, too
    (kept,) = [file for file in files if "counts" in json.loads(file.read_text())]
    content = json.loads(kept.read_text())
    for broken in ({"counts": content["counts"][1:]}, {"log_probs": "AAAA"}, {"ids": 3}):
        kept.write_text(json.dumps(content | broken))
        assert loss_of(trainer_of(base, tmp_path, made, KEPT)).equal(first)


def test_without_weight_nothing_changes_by_a_bit(base, known):
    weights = Weights(**{**NONE, "vag": 1.0, "dpo": 0.5, "sft": 1.0, "attn": 0.1})
    plain = trainer_of(base, known, None, weights)
    kept = trainer_of(base, known, rehearsal(plain_rows(9)), weights)
    assert plain.weights.passes() == kept.weights.passes() == ("plain", "guided")
    first, second = loss_of(plain), loss_of(kept)
    assert second.equal(first)
    first.backward()
    second.backward()
    for name, gradient in gradients(plain).items():
        assert gradients(kept)[name].equal(gradient), name


@pytest.mark.parametrize("form", ["sft", "kl"])
def test_a_step_by_passes_has_the_gradients_of_the_whole_loss(base, known, form):
    made, weights = rehearsal(plain_rows(9), form=form), Weights(sft=1.0, keep=0.5)
    whole, stepped = (trainer_of(base, known, made, weights) for _ in range(2))
    loss = loss_of(whole)
    terms = whole._metrics["train"]
    assert loss.item() == pytest.approx(terms["sft/loss"][0] + 0.5 * terms["keep/loss"][0])
    loss.backward()
    stepped.current_gradient_accumulation_steps = 1
    stepped.training_step(stepped.model, batch_of(stepped))
    for name, gradient in gradients(whole).items():
        torch.testing.assert_close(
            gradients(stepped)[name], gradient, atol=1e-5, rtol=1e-4, msg=name
        )
    ((ids, _),) = stepped._step
    assert ids[:4] == [f"row-{i}" for i in range(4)] and ids[4:] == made.ids(made.places(0, 0, 1))
