"""The gate: every rule's sentence, the exact limits, and what cannot be compared."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from adapt import params
from adapt.evaluation.gate import Decision, Rules, Scores, decide, scores_from
from adapt.params import InputError
from tests.support import tracked

RULES = Rules(min_hal_drop=0.0, max_cover_drop=2.0, max_attention_drop=0.05)


def scores(hallucinated: list[int], covered: list[int] | None = None, **other: Any) -> Scores:
    """One answer and 50 true objects per image."""
    count = len(hallucinated)
    values: dict[str, Any] = {
        "images": tuple(f"image-{i}" for i in range(count)),
        "hallucinated": np.array(hallucinated, dtype=int),
        "responses": np.ones(count, dtype=int),
        "covered": np.array(covered or [50] * count, dtype=int),
        "truth": np.full(count, 50),
        "chair_i": 12.0,
        "late_early": 0.62,
    }
    return Scores(**{**values, **other})


def judge(candidate: Scores, champion: Scores, rules: Rules = RULES) -> Decision:
    return decide(candidate, champion, rules, resamples=500, seed=7)


def test_clear_improvement_is_promoted_with_every_reason() -> None:
    assert judge(
        scores([0, 0, 0, 0], chair_i=4.0, late_early=0.7), scores([1, 1, 1, 1])
    ) == Decision(
        True,
        (
            "passed: Hal 100.0 % -> 0.0 %, down 100.0 points (95 % interval -100.0 to -100.0,"
            " 4 images); the whole interval lies below 0.0. CHAIR_i 12.0 % -> 4.0 %.",
            "passed: Cover 100.0 % -> 100.0 %, unchanged (95 % interval +0.0 to +0.0); "
            "it may fall by up to 2.0 points.",
            "passed: late/early ratio of visual mass 0.620 -> 0.700 (+0.080);"
            " it may fall by up to 0.050.",
        ),
    )


def test_improvement_that_may_be_chance_is_refused() -> None:
    # 1 of 4 images better: a resample misses it with probability (3/4)^4 = 0.32, so the interval
    # reaches 0.
    decision = judge(scores([0, 0, 0, 0]), scores([1, 0, 0, 0]))
    assert not decision.promote
    assert decision.reasons[0].startswith(
        "failed: Hal 25.0 % -> 0.0 %, down 25.0 points (95 % interval -"
    )
    assert "to +0.0, 4 images); the whole interval has to lie below 0.0." in decision.reasons[0]
    assert [reason.split(":")[0] for reason in decision.reasons] == ["failed", "passed", "passed"]


def test_more_hallucination_is_refused() -> None:
    assert (
        judge(scores([1, 1]), scores([0, 0]))
        .reasons[0]
        .startswith("failed: Hal 0.0 % -> 100.0 %, up 100.0 points")
    )


@pytest.mark.parametrize("margin, promoted", [(99.9, True), (100.0, False)])
def test_margin_must_be_exceeded(margin: float, promoted: bool) -> None:
    rules = RULES.model_copy(update={"min_hal_drop": margin})
    assert judge(scores([0, 0]), scores([1, 1]), rules).promote is promoted


@pytest.mark.parametrize(
    "covered, promoted", [(49, True), (48, False)]
)  # 98 % is 2 points less, 96 % is 4
def test_cover_may_fall_by_the_tolerance(covered: int, promoted: bool) -> None:
    decision = judge(scores([0, 0], [covered, covered]), scores([1, 1]))
    assert decision.promote is promoted
    assert (
        f"Cover 100.0 % -> {2 * covered}.0 %, down {100 - 2 * covered}.0 points"
        in decision.reasons[1]
    )


@pytest.mark.parametrize("late_early, promoted", [(0.57, True), (0.569, False)])
def test_attention_may_fall_by_the_tolerance(late_early: float, promoted: bool) -> None:
    decision = judge(scores([0, 0], late_early=late_early), scores([1, 1]))
    assert decision.promote is promoted
    assert f"0.620 -> {late_early:.3f}" in decision.reasons[2]


@pytest.mark.parametrize(
    "candidate, champion, reason",
    [
        (scores([]), scores([1]), "the candidate described no image"),
        (scores([1]), scores([]), "the champion described no image"),
        (scores([0, 0]), scores([1]), "on 2 images and the champion on 1, of which 1 are the same"),
        (scores([0], images=("x",)), scores([1]), "of which 0 are the same"),
        (
            scores([0], chair_i=math.nan),
            scores([1]),
            "the candidate's CHAIR_i is not a number (nan)",
        ),
        (
            scores([0]),
            scores([1], late_early=math.inf),
            "the champion's late/early ratio of visual mass is not",
        ),
        (
            scores([0], [0], truth=np.array([0])),
            scores([1]),
            "the candidate's test images have no answers or no true",
        ),
    ],
)
def test_what_cannot_be_compared_is_not_promoted(
    candidate: Scores, champion: Scores, reason: str
) -> None:
    decision = judge(candidate, champion)
    assert not decision.promote
    assert len(decision.reasons) == 1 and reason in decision.reasons[0]


@pytest.mark.parametrize(
    "changed", [{"truth": np.array([1, 2, 3])}, {"responses": np.array([0, 1])}]
)
def test_scores_that_do_not_fit_are_our_bug(changed: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="Scores"):
        scores([1, 0], **changed)


@pytest.mark.parametrize("value", [-0.1, math.nan, math.inf])
@pytest.mark.parametrize("key", ["min_hal_drop", "max_cover_drop", "max_attention_drop"])
def test_rules_refuse(key: str, value: float) -> None:
    with pytest.raises(
        InputError, match=rf"^params.yaml: gate\.{key}: must be (at least 0|finite)"
    ):
        params.load({"gate": RULES.model_dump() | {key: value}}, "gate", Rules)


@pytest.mark.parametrize("as_file", [True, False])
def test_scores_from_responses(as_file: bool, tmp_path: Path) -> None:
    tracked.responses().to_parquet(tmp_path / "responses.parquet")
    source = (
        tmp_path / "responses.parquet"
        if as_file
        else tracked.responses().sample(frac=1, random_state=0)
    )
    found = scores_from(source, {"base/chair_i": 25.0, "base/mass_late_early": 0.6}, "base")
    assert (found.images, found.chair_i, found.late_early) == (("a", "b"), 25.0, 0.6)
    assert found.hallucinated.tolist() == [1, 0]
    assert found.responses.tolist() == [
        1,
        1,
    ]  # the yes/no question about picture a is no description
    assert (found.covered.tolist(), found.truth.tolist()) == ([1, 2], [1, 2])


def test_two_descriptions_of_a_picture_count_as_one_image() -> None:
    table = tracked.responses().replace({"image_id": {"b": "a"}})
    found = scores_from(table, {"base/chair_i": 25.0, "base/mass_late_early": 0.6}, "base")
    assert (found.images, found.hallucinated.tolist(), found.responses.tolist()) == (
        ("a",),
        [1],
        [2],
    )


def test_missing_metric_is_our_bug() -> None:
    with pytest.raises(ValueError, match="no tuned/mass_late_early"):
        scores_from(tracked.responses(), {"tuned/chair_i": 1.0}, "tuned")


def test_decision_does_not_depend_on_chance() -> None:
    rng = np.random.default_rng(0)
    new, old = scores(rng.integers(0, 2, 60).tolist()), scores(rng.integers(0, 2, 60).tolist())
    assert judge(new, old) == judge(new, old)
