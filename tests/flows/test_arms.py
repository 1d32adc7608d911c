"""Arms: what params.yaml may say of them, and what is said of a mistake."""

import copy

import pytest

from adapt import launch, params
from adapt.params import InputError
from flows.compare.arms import ArmsConfig, arm_of
from tests.support.closure import ROOT

CONTENT = params.read(ROOT / "params.yaml")


def with_arm(name, given):
    content = copy.deepcopy(CONTENT)
    content["arms"]["named"][name] = given
    return content


def test_every_shipped_arm_can_be_read():
    arms = {name: arm_of(CONTENT, name) for name in CONTENT["arms"]["named"]}
    assert arms["base"].train is None and arms["base"].steer is None
    assert (
        arms["sft"].train.w_vag == 0 and arms["sft"].train.w_sft == 2 and arms["sft"].steer is None
    )
    assert arms["full_steered"].train.w_vag == CONTENT["train"]["w_vag"]
    assert arms["full_steered"].steer.alpha == CONTENT["steer"]["alpha"]
    assert arms["paper_rule"].steer.trigger == "match"


@pytest.mark.parametrize(
    "given, message",
    [
        (
            {"train": {"w_vga": 1.0}},
            "arms.named.mine: unknown key train.w_vga; did you mean train.w_vag",
        ),
        (
            {"steer": {"trigger": "focus"}},
            "arms.named.mine: steer.trigger: focus is not one of mass, amc",
        ),
        ({"data": {}}, "arms.named.mine.data: an arm changes train or steer"),
        ({"train": None}, "arms.named.mine.train: must be keys and values"),
    ],
)
def test_a_mistake_names_the_arm_and_the_key(given, message):
    with pytest.raises(InputError, match=message.replace(".", r"\.")):
        launch.configs(with_arm("mine", given))


def test_an_unknown_arm_is_refused():
    with pytest.raises(InputError, match="unknown arm bse; known: base, steering"):
        arm_of(CONTENT, "bse")


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"named": {"other": {}}}, "must have the arm base"),
        ({"references": ["nobody"]}, "references: nobody is not one of"),
        ({"seeds": []}, "seeds: must name at least one seed"),
        ({"learning_rates": [0.0]}, "learning_rates: must be positive"),
    ],
)
def test_section_arms_is_checked(changes, message):
    with pytest.raises(InputError, match=message):
        params.load({"arms": {**CONTENT["arms"], **changes}}, "arms", ArmsConfig)
