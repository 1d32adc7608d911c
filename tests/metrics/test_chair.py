"""CHAIR, Hal, Cover and Cog by hand, and CHAIR as the official code counts it."""

from types import SimpleNamespace
from typing import Any

import pytest

from adapt.metrics import bootstrap
from adapt.metrics.chair import METRICS, Counts, aggregate, count, ratios
from tests.support import oracle

WORDS = SimpleNamespace(
    objects={name: (name, f"{name}s") for name in ("house", "tree", "car", "bus", "cat")}
)


def truth(objects: list[str], absent: list[str]) -> Any:
    return SimpleNamespace(objects=[SimpleNamespace(name=name) for name in objects], absent=absent)


# There are a house and a tree (twice); a car and a bus are likely hallucinations.
TOWN = truth(["house", "tree", "tree"], ["car", "bus"])
RESPONSES = [
    # 3 mentions, 2 hallucinated; 1 of 2 covered; 1 of 2 targets.
    count("A red house, two cars and a car.", TOWN, WORDS),
    count("a house, a tree and a cat.", TOWN, WORDS),  # 3 mentions, 1 hallucinated; 2 of 2; 0 of 2
    count("trees and a house.", TOWN, WORDS),  # 2 mentions, none hallucinated; 2 of 2; 0 of 2
    count("nothing at all.", TOWN, WORDS),  # no mention; 0 of 2; 0 of 2
]


def test_one_response() -> None:
    first = RESPONSES[0]
    assert first.mentioned == ["house", "car", "car"] and first.hallucinated == ["car", "car"]
    assert first.truth == ("house", "tree") and first.covered == ["house"]
    assert first.targets == ("car", "bus") and first.cog == ["car"]
    assert first.hallucinated_spans == [(17, 21), (28, 31)]


def test_pooled_by_hand() -> None:
    expected = {"chair_i": 100 * 3 / 8, "hal": 50.0, "cover": 100 * 5 / 8, "cog": 100 * 1 / 8}
    assert aggregate(RESPONSES) == pytest.approx(expected)


def test_ratios_are_what_aggregate_pools_and_bootstrap_takes() -> None:
    parts = ratios(RESPONSES)
    assert tuple(parts) == METRICS
    for name, value in aggregate(RESPONSES).items():
        assert bootstrap.interval(*parts[name], resamples=50, seed=0).point == pytest.approx(value)


def test_no_mentions_are_zero_and_no_truth_is_no_metric() -> None:
    assert aggregate([Counts((), ("house",), ("bus",))]) == dict.fromkeys(METRICS, 0.0)
    assert aggregate([Counts((), (), ())]) == {"chair_i": 0.0, "hal": 0.0}
    assert aggregate([]) == {}


@pytest.mark.parametrize("variant", ["maxlinn_pattern", "opera_nltk"])
def test_equals_the_official_chair_on_its_own_words(variant: str) -> None:
    file = oracle.load("chair_handwritten.json")
    found = [case["official"][variant]["node_words"] for case in file["cases"]]
    words = SimpleNamespace(objects={word: (word,) for case in found for word in case})
    counts = [
        count("; ".join(node_words), truth(case["gt_objects"], []), words)
        for node_words, case in zip(found, file["cases"], strict=True)
    ]
    assert [c.mentioned for c in counts] == found
    ours, official = aggregate(counts), file["overall"][variant]
    assert ours["hal"] == pytest.approx(100 * official["CHAIRs"], abs=1e-9)
    assert ours["chair_i"] == pytest.approx(100 * official["CHAIRi"], abs=1e-9)
    assert ours["cover"] == pytest.approx(100 * official["Recall"], abs=1e-9)
