"""Arms: what arms.yaml may say of them, and what is said of a mistake."""

import re
from typing import Any

import pytest

from adapt import params
from adapt.params import InputError
from flows.compare import arms
from flows.compare.arms import ArmsConfig, Comparison, arm_of
from flows.compare.rates import tuned as rates_of
from tests.support.closure import ROOT

CONTENT = params.read(ROOT / "params.yaml")
ARMS = params.read(arms.FILE)["arms"]


def loaded(**changes: Any) -> ArmsConfig:
    return params.load({"arms": {**ARMS, **changes}}, "arms", ArmsConfig, file="arms.yaml")


def test_every_shipped_arm_can_be_read():
    shipped = arms.read()
    by_name = {name: arm_of(CONTENT, shipped, name) for name in shipped.named}
    assert by_name["base"].train is None and by_name["base"].steer is None
    assert by_name["sft"].train.w_vag == 0 and by_name["sft"].train.w_sft == 2
    assert by_name["sft"].steer is None
    assert by_name["full"].train.w_vag > CONTENT["train"]["w_vag"] == 0
    assert by_name["shipped_steered"].train.w_vag == CONTENT["train"]["w_vag"]
    assert by_name["shipped_steered"].steer.alpha == CONTENT["steer"]["alpha"]
    assert by_name["paper_rule"].steer.trigger == "amc"
    assert by_name["paper_rule"].steer.layers == "all"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            {"train": {"w_vga": 1.0}},
            "arms.named.mine: unknown key train.w_vga; did you mean train.w_vag?",
        ),
        (
            {"steer": {"trigger": "focus"}},
            "arms.named.mine: steer.trigger: must be 'mass' or 'amc', got 'focus'",
        ),
        (
            {"pairs": {"imges": 9}, "train": {}},
            "arms.named.mine: unknown key pairs.imges; did you mean pairs.images?",
        ),
        (
            {"scenes": {"caption_noise": 2.0}},
            "arms.named.mine: scenes.caption_noise: must be at most 1, got 2.0",
        ),
        (
            {"pairs": {"images": 9}},
            "arms.named.mine: pairs: nothing is trained on them; add train: {}",
        ),
        ({"train": {"steps": None}}, "arms.named.mine: train.steps: expected a whole number"),
        ({"data": {}}, "unknown key arms.named.mine.data; known: pairs, scenes, steer, train"),
        ({"train": 3}, "arms.named.mine.train: expected keys and values, got 3"),
    ],
)
def test_a_mistake_names_the_arm_and_the_key(given, message):
    with pytest.raises(InputError, match=f"^arms.yaml: {re.escape(message)}(, got nothing)?$"):
        arm_of(CONTENT, loaded(named={**ARMS["named"], "mine": given}), "mine")


def test_an_arm_has_its_changes_of_every_section():
    given = {"scenes": {"caption_noise": 0.9}, "pairs": {"images": 9}, "train": {"steps": 3}}
    mine = arm_of(CONTENT, loaded(named={**ARMS["named"], "mine": given}), "mine")
    assert {name: mine.content[name] for name in given} == {
        name: {**CONTENT[name], **changes} for name, changes in given.items()
    }
    assert {**mine.content, **{name: CONTENT[name] for name in given}} == CONTENT
    assert mine.train.steps == 3 and mine.steer is None and mine.changes.named == given


def test_an_arm_keeps_a_learning_rate_of_its_own():
    rates = {"learning_rates": [1.0e-4]}
    both = {**ARMS["named"], "own": {"train": {"learning_rate": 0.5}}, "list": {"train": {}}}
    comparison = Comparison(
        root=ROOT, content=CONTENT, arms=loaded(named=both, **rates), jobs=1, split="validation"
    )
    arms_ = [comparison.arm(name) for name in ("base", "own", "list")]
    base, own, listed = rates_of(comparison, arms_)
    assert base is arms_[0] and own.train.learning_rate == 0.5
    assert listed.train.learning_rate == listed.content["train"]["learning_rate"] == 1.0e-4


def test_an_unknown_arm_is_refused():
    with pytest.raises(InputError, match="unknown arm bse; known: base, steering"):
        arm_of(CONTENT, arms.read(), "bse")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"named": {"other": {}}}, "arms.named: must have the arm base"),
        ({"references": ["nobody"]}, "arms.references: ['nobody'] is not among base, "),
        ({"seeds": []}, "arms.seeds: must name at least one, got []"),
        ({"seeds": [-1]}, "arms.seeds[0]: must be at least 0, got -1"),
        ({"learning_rates": [0.0]}, "arms.learning_rates[0]: must be greater than 0, got 0.0"),
    ],
)
def test_section_arms_is_checked(changes, message):
    with pytest.raises(InputError, match=f"^arms.yaml: {re.escape(message)}"):
        loaded(**changes)
