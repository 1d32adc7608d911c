"""Reference log-probabilities from the cache are those of TRL; they are computed once."""

import dataclasses
import gc
import json
import weakref
from pathlib import Path

import pytest
import torch

from adapt.models.load import load_model
from adapt.preference import reference
from adapt.preference.collate import GUIDED, REFERENCE, part
from adapt.preference.prefix import twice
from adapt.preference.reference import ReferenceCache
from adapt.preference.settings import VagForm
from adapt.preference.trainer import AdaptTrainer, Weights
from tests.support import tiny_world
from tests.support.preference_rows import (
    adapt_trainer,
    changed,
    collator,
    config,
    data_of,
    gradients,
    loss_of,
    pairs,
    rows,
    support,
    trl_trainer,
)

BOTH = Weights(vag=1, dpo=1, sft=0, attn=0)


def test_columns_are_what_trl_computes_and_the_model_is_let_go(base, tmp_path, monkeypatch):
    held: list[weakref.ref] = []
    compute = reference._compute

    def spy(source, guided):
        trainer = source.log_probs.__self__
        held.append(weakref.ref(trainer.ref_model))
        return compute(source, guided)

    monkeypatch.setattr(reference, "_compute", spy)
    ours = adapt_trainer(base, tmp_path, BOTH)
    gc.collect()
    assert [ref() for ref in held] == [None, None]
    trl = trl_trainer(base, tmp_path)
    batch = ours.data_collator([*ours.train_dataset])
    for guided, prefix in ((False, ""), (True, GUIDED)):
        inputs = part(batch, guided)
        fresh = trl.compute_ref_log_probs(trl.ref_model, inputs if guided else twice(inputs))
        for name, expected in zip(REFERENCE, fresh, strict=True):
            torch.testing.assert_close(batch[prefix + name], expected, atol=1e-5, rtol=0)
    assert not torch.allclose(batch[REFERENCE[0]], batch[GUIDED + REFERENCE[0]], atol=1e-3)


def test_a_second_run_reads_what_the_first_computed(base, tmp_path, monkeypatch):
    first = loss_of(adapt_trainer(base, tmp_path, BOTH))
    monkeypatch.setattr(reference, "_compute", lambda *_: pytest.fail("computed again"))
    assert loss_of(adapt_trainer(base, tmp_path, BOTH)).equal(first)
    # One set of images does not ask for the other.
    adapt_trainer(base, tmp_path, Weights(vag=0, dpo=1, sft=1, attn=0))


def test_the_policy_is_its_own_reference_and_no_second_model_is_loaded(base, tmp_path, monkeypatch):
    from trl.trainer import dpo_trainer

    known = adapt_trainer(base, tmp_path, BOTH).train_dataset
    monkeypatch.setattr(
        dpo_trainer, "create_model_from_path", lambda *_, **__: pytest.fail("loaded again")
    )
    alone = AdaptTrainer(
        model=load_model(base),
        args=config(tmp_path),
        data_collator=collator(),
        weights=BOTH,
        anchor_tokens=2,
        train_dataset=data_of(pairs(4)),
        processing_class=tiny_world.processor(),
        attn_layers="all",
        cache=ReferenceCache(uri=str(tmp_path / "other"), base="base"),
    )
    assert alone.ref_model is None and alone.accelerator._models == []
    for name in (*REFERENCE, *(GUIDED + name for name in REFERENCE)):
        assert alone.train_dataset[name] == pytest.approx(known[name], abs=1e-5)
    # What was done to the other name for the weights is not in the way of training.
    loss_of(alone).backward()
    assert any(gradient.any() for gradient in gradients(alone).values())


def files(folder: Path) -> set[str]:
    return {path.name for path in (folder / "reference").glob("*.json")}


@pytest.mark.parametrize(
    ("change", "plain", "guided"),
    [
        ("base", 1, 1),
        ("chosen", 1, 1),
        ("prefix", 1, 1),
        ("images", 1, 1),
        ("support", 0, 1),
        ("noise", 0, 1),
        ("form", 0, 1),
        ("size", 1, 1),
        ("", 0, 0),
    ],
)
def test_whatever_the_values_depend_on_changes_the_key(base, tmp_path, change, plain, guided):
    """How many of the two files are computed anew after a change."""
    adapt_trainer(base, tmp_path, BOTH)
    before, made = files(tmp_path), rows()
    options: dict = {
        "base": {"digest": "other"},
        "noise": {"noise": 0.5},
        "form": {"form": "same_text"},
        "size": {"size": 2},
    }.get(change, {})
    if change == "prefix":
        made = data_of([dataclasses.replace(pairs(1)[0], prefix="a red"), *pairs(4)[1:]])
    elif change in made[1]:
        made[1][change] = made[0][change]
    adapt_trainer(base, tmp_path, BOTH, data=made, **options)
    assert len(files(tmp_path) - before) == plain + guided


def test_each_form_has_its_own_reference_and_only_the_papers_hangs_on_anchors(base, tmp_path):
    forms: tuple[VagForm, ...] = ("paper", "same_text", "same_image")
    for form in forms:
        adapt_trainer(base, tmp_path, BOTH, form=form)
    before, moved = files(tmp_path), [changed(row, support=(support(9),)) for row in pairs(4)]
    assert len(before) == 4, "plain images, and guided ones three times"
    for form, anew in zip(forms, (1, 0, 0), strict=True):
        adapt_trainer(base, tmp_path, BOTH, form=form, data=data_of(moved))
        assert len(files(tmp_path) - before) == anew, form
        before = files(tmp_path)


def test_a_reference_that_is_not_finite_names_the_rows(base, tmp_path, monkeypatch):
    from trl import DPOTrainer

    ask = DPOTrainer.compute_ref_log_probs

    def broken(self, model, inputs):
        chosen, rejected = ask(self, model, inputs)
        chosen[2] = float("nan")
        return chosen, rejected

    monkeypatch.setattr(DPOTrainer, "compute_ref_log_probs", broken)
    with pytest.raises(
        FloatingPointError, match=r"no finite log-probability to the answers of row-2$"
    ):
        adapt_trainer(base, tmp_path, BOTH)
    assert not files(tmp_path)


def test_the_file_holds_two_numbers_per_row(base, tmp_path):
    adapt_trainer(base, tmp_path, Weights(vag=0, dpo=1, sft=0, attn=0))
    (path,) = (tmp_path / "reference").glob("*.json")
    values = json.loads(path.read_text())["log_probs"]
    assert [len(row) for row in values] == [2] * 4
    assert all(value < 0 for row in values for value in row)
