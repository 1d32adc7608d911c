"""Section `gate`: which rules it takes, and the one line that is said of the others."""

import json
from pathlib import Path
from typing import Any

import pytest

from adapt import params
from adapt.evaluation.rules import Rules
from adapt.metrics.measures import BENCHMARKS, SPLIT, measure
from adapt.params import InputError
from tests.support.closure import ROOT

LABELS = {"amber": "amber", "pope-popular": "pope"}


def load(gate: Any) -> Rules:
    return params.load({"gate": gate}, "gate", Rules)


def mistake(gate: Any) -> str:
    with pytest.raises(InputError) as caught:
        load(gate)
    line = str(caught.value)
    assert "\n" not in line
    return line.removeprefix("params.yaml: ")


def test_the_file_s_own_rules() -> None:
    content = params.read(ROOT / "params.yaml")
    rules = params.load(content, "gate", Rules)
    assert params.as_params("gate", rules) == {"gate": content["gate"]}
    assert list(rules.named) == ["hal", "cover", "mass_late_early"]
    assert [rule.demand for rule in rules.named.values()] == [
        ("drop", 0.0),
        ("max_loss", 2.0),
        ("max_loss", 0.05),
    ]


def test_a_metric_of_a_benchmark_is_a_key_with_a_dot(tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text(
        "gate:\n  amber.hal: {drop: 0.0, confidence: 0.95}\n  'pope-popular.f1': {max_loss: 1}\n"
    )
    rules = params.load(params.read(tmp_path / "params.yaml"), "gate", Rules)
    rules.require_known(LABELS)
    assert rules.named["pope-popular.f1"].demand == ("max_loss", 1)
    assert params.flat(params.as_params("gate", rules))["gate.amber.hal.drop"] == "0.0"


@pytest.mark.parametrize(
    ("gate", "message"),
    [
        ({"hal": {"drop": -0.1}}, "gate.hal.drop: must be at least 0, got -0.1"),
        ({"hal": {"drop": float("nan")}}, "gate.hal.drop: must be "),
        ({"hal": {"max": float("inf")}}, "gate.hal.max: must be finite, got inf"),
        ({"amber.hal": {"drop": "much"}}, "gate.amber.hal.drop: expected a number, got 'much'"),
        (
            {"hal": {"drop": 1.0, "confidence": 1.0}},
            "gate.hal.confidence: must be less than 1, got 1.0",
        ),
        ({"hal": {"dorp": 1.0}}, "unknown key gate.hal.dorp; did you mean gate.hal.drop?"),
        ({"hal": 3.0}, "gate.hal: expected keys and values, got 3.0"),
        (
            {"hal": {"confidence": 0.9}},
            "gate.hal: expected one of drop, rise, max_loss, max, min, got none of them",
        ),
        (
            {"hal": {"drop": 1.0, "max": 2.0}},
            "gate.hal: expected one of drop, rise, max_loss, max, min, got drop and max",
        ),
        ({"covers": {"drop": 1.0}}, "gate.covers: unknown metric; did you mean gate.cover?"),
        ({"min_hal_drop": 0.0}, "gate.min_hal_drop: unknown metric; known: amc_late_early, "),
        ({}, "gate: must have a rule for at least one metric"),
        (
            {"length": {"max_loss": 1.0}},
            "gate.length.max_loss: neither way is worse for length; take drop, rise, max or min",
        ),
        (
            {"mass_late_early": {"rise": 0.1, "confidence": 0.9}},
            "gate.mass_late_early.confidence: late/early ratio of visual mass is no ratio over"
            " images and has no interval; leave confidence out",
        ),
    ],
)
def test_a_rule_that_is_none(gate: Any, message: str) -> None:
    assert mistake(gate).startswith(message)


@pytest.mark.parametrize(
    ("gate", "message"),
    [
        (
            {"pope.f1": {"max_loss": 1.0}},
            "gate.pope.f1: no benchmark is called pope; add {name: pope, path: ...} to"
            " answer.benchmarks; labels there: amber, pope-popular",
        ),
        (
            {"mine.f1": {"max_loss": 1.0}},
            "gate.mine.f1: no benchmark is called mine; add {name: ..., path: ...}",
        ),
        (
            {"amber.chair_i": {"drop": 1.0}},
            "gate.amber.chair_i: unknown metric of amber; did you mean gate.amber.chair?",
        ),
        (
            {"pope-popular.yes_ratio": {"max_loss": 1.0}},
            "gate.pope-popular.yes_ratio.max_loss: neither way is worse for share of yes on",
        ),
        (
            {"amber.amber_score": {"rise": 1.0, "confidence": 0.9}},
            "gate.amber.amber_score.confidence: AMBER score on amber is no ratio over images",
        ),
    ],
)
def test_a_rule_on_a_benchmark_that_is_not_asked(gate: Any, message: str) -> None:
    with pytest.raises(InputError) as caught:
        load(gate).require_known(LABELS)
    assert str(caught.value).startswith(message)


def test_every_metric_of_a_benchmark_can_be_spoken_of() -> None:
    for name, metrics in BENCHMARKS.items():
        for key, one in metrics.items():
            of = measure(f"mine.{key}", {"mine": name})
            assert of.name == f"{one.name} on mine" and of.shown(1.0).startswith("1.0")
            assert not one.beside or one.beside in metrics, (name, key)
    assert {one.better for one in SPLIT.values()} == {"lower", "higher", ""}


def test_the_schema_is_one_of_free_keys() -> None:
    schema = Rules.model_json_schema()
    assert schema["additionalProperties"] == {"$ref": "#/$defs/Rule"}
    json.dumps(schema)


def test_a_person_may_have_to_approve_and_that_is_no_metric() -> None:
    rule = {"hal": {"drop": 0.0}}
    assert load(rule).approval == "none"
    rules = load({"approval": "required", **rule})
    assert (rules.approval, list(rules.named)) == ("required", ["hal"])
    assert params.as_params("gate", rules) == {"gate": {"approval": "required", **rule}}
    assert mistake({"approval": "required"}) == "gate: must have a rule for at least one metric"
    assert "gate.approval: " in mistake({"approval": "maybe", **rule})
