"""POPE's parser and scores by hand, and equal to the official evaluator's results."""

import hashlib
from typing import Any

import pytest

from adapt.metrics.pope import aggregate, parse_yes_no
from tests.metrics import oracle


def assert_equals(ours: dict[str, float], official: dict[str, Any]) -> None:
    for name in ("accuracy", "precision", "recall", "f1", "yes_ratio"):
        if name in official:
            assert ours[name] == pytest.approx(100 * official[name], abs=1e-9), name


def test_answers_of_the_default_world() -> None:
    assert parse_yes_no("yes, there is a tree.") and not parse_yes_no("no, there is no tree.")


def test_all_no_scores_zero_where_the_official_code_divides_by_zero() -> None:
    scores = aggregate([True, False], [False, False])
    assert scores == {"accuracy": 50.0, "precision": 0.0, "recall": 0.0, "f1": 0.0, "yes_ratio": 0.0}
    assert aggregate([], [])["accuracy"] == 0.0


def test_every_official_parse() -> None:
    for case in oracle.load("pope_evaluate.json")["parse_cases"]:
        assert parse_yes_no(case["answer"]) == (case["official_pred"] == "yes"), case


def test_every_official_run() -> None:
    for run in oracle.load("pope_evaluate.json")["runs"].values():
        labels = [label == "yes" for label in run["labels"]]
        assert_equals(aggregate(labels, [parse_yes_no(answer) for answer in run["answers"]]), run["official"])


@pytest.mark.parametrize(("split", "false_yes"), [("random", 8), ("popular", 15), ("adversarial", 24)])
def test_full_official_splits(split: str, false_yes: int) -> None:
    official = oracle.load("pope_evaluate.json")["full_coco_splits"][split]["official"]
    labels, answers = [], []
    for question in range(1, 3001):  # the formula that the file gives
        labels.append(question % 2 == 1)
        draw = int(hashlib.sha1(f"alpha:{split}:{question}".encode()).hexdigest(), 16) % 100
        answers.append(parse_yes_no("Yes" if draw < (86 if labels[-1] else false_yes) else "No"))
    assert_equals(aggregate(labels, answers), official)
