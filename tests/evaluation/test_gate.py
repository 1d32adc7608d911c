"""The gate: every rule's sentence, the exact limits, and what cannot be compared."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adapt.evaluation.counts import Counted, counted
from adapt.evaluation.gate import Decision, Draws, Scores, decide
from adapt.evaluation.rules import Rules
from tests.support import tracked

DEFAULT = {
    "hal": {"drop": 0.0, "confidence": 0.95},
    "cover": {"max_loss": 2.0},
    "mass_late_early": {"max_loss": 0.05},
}
DRAWS = Draws(resamples=500, seed=7)
LABELS = {"amber": "amber", "pope-popular": "pope", "mmhal": "mmhal"}


def rules(**named: Any) -> Rules:
    """Rules by metric."""
    return Rules.model_validate(named)


def of_images(above: list[int], below: list[int], names: tuple[str, ...] = ()) -> Counted:
    names = names or tuple(f"image-{i}" for i in range(len(above)))
    return Counted(names, np.array(above, dtype=int), np.array(below, dtype=int))


def scores(
    hallucinated: list[int],
    covered: list[int] | None = None,
    truth: list[int] | None = None,
    images: tuple[str, ...] = (),
    **values: float,
) -> Scores:
    """One answer and 50 true objects per image."""
    count = len(hallucinated)
    hal = of_images(hallucinated, [1] * count, images)
    cover = of_images(covered or [50] * count, truth or [50] * count, images)
    measured = {"chair_i": 12.0, "mass_late_early": 0.62} | values
    return Scores(values=measured, counted={"hal": hal, "cover": cover} if count else {})


def rated(key: str, above: list[int], below: list[int]) -> Scores:
    return Scores(values={}, counted={key: of_images(above, below)})


def judge(candidate: Scores, champion: Scores, asked: Rules | None = None) -> Decision:
    asked = asked or Rules.model_validate(DEFAULT)
    return decide(candidate, champion, asked, LABELS, DRAWS)


def test_clear_improvement_is_promoted_with_every_reason() -> None:
    assert judge(
        scores([0, 0, 0, 0], chair_i=4.0, mass_late_early=0.7), scores([1, 1, 1, 1])
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
    asked = rules(hal={"drop": margin, "confidence": 0.95})
    assert judge(scores([0, 0]), scores([1, 1]), asked).promote is promoted


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
    decision = judge(scores([0, 0], mass_late_early=late_early), scores([1, 1]))
    assert decision.promote is promoted
    assert f"0.620 -> {late_early:.3f}" in decision.reasons[2]


@pytest.mark.parametrize(
    "candidate, champion, place, reason",
    [
        (scores([]), scores([1]), 0, "failed: Hal was not measured of the candidate: the test"),
        (scores([1]), scores([]), 0, "failed: Hal was not measured of the champion: the test"),
        (
            scores([0, 0]),
            scores([1]),
            1,
            "failed: Cover: the candidate was tested on 2 images and the champion on 1, of which 1"
            " are the same; only results on the same images can be compared.",
        ),
        (scores([0], images=("x",)), scores([1]), 0, "of which 0 are the same"),
        (
            scores([0], chair_i=math.nan),
            scores([1]),
            0,
            "the candidate's CHAIR_i is not a number (nan)",
        ),
        (
            scores([0]),
            scores([1], mass_late_early=math.inf),
            2,
            "the champion's late/early ratio of visual mass is not a number (inf)",
        ),
    ],
)
def test_what_cannot_be_compared_is_not_promoted(
    candidate: Scores, champion: Scores, place: int, reason: str
) -> None:
    decision = judge(candidate, champion)
    assert not decision.promote
    assert len(decision.reasons) == 3 and reason in decision.reasons[place]


def test_what_was_not_measured_says_what_to_add() -> None:
    unknown = Scores(values={"mass_late_early": 0.7}, counted={})
    reasons = judge(unknown, unknown).reasons
    assert reasons[0] == (
        "failed: Hal was not measured of the candidate: the test split has no descriptions of"
        " pictures whose objects are known; add some, or put a rule on something else, such as a"
        " benchmark of answer.benchmarks."
    )
    assert reasons[2].startswith("passed: late/early")
    asked = rules(**{"amber.hal": {"max": 30.0}})
    assert judge(unknown, unknown, asked).reasons == (
        "failed: Hal on amber was not measured of the candidate: no answer to amber counts for it;"
        " look at its entry in answer.benchmarks.",
    )


@pytest.mark.parametrize(
    "rule, before, after, promoted, ending",
    [  # of 10 answers
        (
            {"drop": 9.0},
            5,
            4,
            True,
            "down 10.0 points (95 % interval -30.0 to +0.0); it fell by more than 9.0 points.",
        ),
        ({"drop": 10.0}, 5, 4, False, "it has to fall by more than 10.0 points."),
        (
            {"rise": 0.0},
            4,
            5,
            True,
            "up 10.0 points (95 % interval +0.0 to +30.0); it rose by more than 0.0 points.",
        ),
        (
            {"rise": 0.0, "confidence": 0.9},
            4,
            5,
            False,
            "10 images); the whole interval has to lie above 0.0.",
        ),
        ({"max_loss": 10.0}, 4, 5, True, "it may rise by up to 10.0 points."),
        ({"max_loss": 9.9}, 4, 5, False, "it may rise by up to 9.9 points."),
        ({"max_loss": 9.9}, 5, 4, True, "it may rise by up to 9.9 points."),
        (
            {"max_loss": 10.0, "confidence": 0.95},
            4,
            5,
            False,
            "the whole interval has to lie below 10.0.",
        ),
        ({"max_loss": 0.0, "confidence": 0.95}, 4, 4, True, "the whole interval lies below 0.0."),
        ({"max": 40.0}, 0, 4, True, "it may be at most 40.0 %."),
        ({"max": 39.9}, 5, 4, False, "it may be at most 39.9 %."),
        (
            {"max": 40.0, "confidence": 0.95},
            5,
            4,
            False,
            "the whole interval has to lie below 40.0.",
        ),
        ({"min": 40.0}, 5, 4, True, "it has to be at least 40.0 %."),
        ({"min": 40.1}, 5, 4, False, "it has to be at least 40.1 %."),
        ({"min": 1.0, "confidence": 0.5}, 5, 4, True, "the whole interval lies above 1.0."),
    ],
)
def test_every_rule_by_hand(
    rule: dict[str, float], before: int, after: int, promoted: bool, ending: str
) -> None:
    new, old = (rated("amber.hal", [1] * n + [0] * (10 - n), [1] * 10) for n in (after, before))
    decision = judge(new, old, rules(**{"amber.hal": rule}))
    assert decision.promote is promoted
    assert decision.reasons[0].endswith(ending)
    is_limit = "max" in rule or "min" in rule
    shown = f"{10 * after}.0 % (" if is_limit else f"{10 * before}.0 % -> {10 * after}.0 %, "
    start = f"{'passed' if promoted else 'failed'}: Hal on amber {shown}"
    assert decision.reasons[0].startswith(start)


def test_a_benchmark_tells_what_stands_beside_a_metric() -> None:
    new = Scores(values={"amber.chair": 4.0}, counted={"amber.hal": of_images([0], [1])})
    old = Scores(values={"amber.chair": 9.0}, counted={"amber.hal": of_images([1], [1])})
    asked = rules(**{"amber.hal": {"drop": 0.0}})
    assert judge(new, old, asked).reasons[0].endswith(" CHAIR on amber 9.0 % -> 4.0 %.")
    asked = rules(**{"amber.hal": {"max": 0.0}})
    assert judge(new, old, asked).reasons[0].endswith(" CHAIR on amber 4.0 %.")


def test_what_is_no_rate_is_in_its_own_unit() -> None:
    new, old = (
        rated("mmhal.average_score", [3, 4], [1, 1]),
        rated("mmhal.average_score", [3, 2], [1, 1]),
    )
    asked = rules(**{"mmhal.average_score": {"rise": 0.5}})
    assert judge(new, old, asked).reasons == (
        "passed: average score on mmhal 2.50 -> 3.50, up 1.00 (95 % interval +0.00 to +2.00);"
        " it rose by more than 0.50.",
    )


def test_a_fixed_limit_asks_nothing_of_the_champion() -> None:
    asked = rules(hal={"max": 10.0}, mass_late_early={"min": 0.6})
    decision = judge(scores([0, 0]), scores([]), asked)
    assert decision.promote
    assert decision.reasons[1] == (
        "passed: late/early ratio of visual mass 0.620; it has to be at least 0.600."
    )


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=30), st.data())
def test_a_rule_never_passes_a_worse_model_than_one_it_refuses(
    pairs: list[tuple[bool, bool]], data: st.DataObject
) -> None:
    """Mending one more answer never turns a pass into a refusal, with or without confidence."""
    old, new = ([int(pair[side]) for pair in pairs] for side in (0, 1))
    place = data.draw(st.integers(0, len(new) - 1))
    mended = [0 if i == place else value for i, value in enumerate(new)]
    ones, level = [1] * len(pairs), data.draw(st.sampled_from([{}, {"confidence": 0.8}]))
    for rule in ({"drop": 5.0}, {"max_loss": 5.0}, {"max": 30.0}):
        asked = rules(**{"amber.hal": {**rule, **level}})
        worse, better = (
            decide(
                rated("amber.hal", answers, ones),
                rated("amber.hal", old, ones),
                asked,
                LABELS,
                Draws(resamples=50, seed=1),
            ).promote
            for answers in (new, mended)
        )
        assert better >= worse


@pytest.mark.parametrize("above, below", [([1, 0], [1, 1, 1]), ([1, 0], [0, 1])])
def test_counts_that_do_not_fit_are_our_bug(above: list[int], below: list[int]) -> None:
    with pytest.raises(ValueError, match="Counted"):
        of_images(above, below)


def test_counts_from_judged_answers() -> None:
    table = tracked.responses().sample(frac=1, random_state=0)
    rows = table[table.arm == "base"]
    hal, cover = counted(rows, "hal"), counted(rows, "cover")
    assert hal and cover and hal.images == cover.images == ("a", "b")
    # The yes/no question about picture a is no description.
    assert (hal.above.tolist(), hal.below.tolist()) == ([1, 0], [1, 1])
    assert (cover.above.tolist(), cover.below.tolist()) == ([1, 2], [1, 2])


def test_two_descriptions_of_a_picture_count_as_one_image() -> None:
    table = tracked.responses().replace({"image_id": {"b": "a"}})
    found = counted(table[table.arm == "base"], "hal")
    assert found and (found.images, found.above.tolist(), found.below.tolist()) == (
        ("a",),
        [1],
        [2],
    )


def test_decision_does_not_depend_on_chance() -> None:
    rng = np.random.default_rng(0)
    new, old = scores(rng.integers(0, 2, 60).tolist()), scores(rng.integers(0, 2, 60).tolist())
    assert judge(new, old) == judge(new, old)
