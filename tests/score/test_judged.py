"""MMHal and HallusionBench: equal to the official summaries, and by hand."""

import dataclasses
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapt.params import InputError
from adapt.score.judged import TYPES, Verdict, hallusion, mmhal, rating
from adapt.score.scored import intervals
from tests.support import oracle


def test_mmhal_prints_what_the_official_code_prints() -> None:
    file = oracle.load("mmhal.json")
    scored, printed = mmhal(file["judge_texts"], "official"), file["official_printed"]
    for name, official in {
        "informativeness": "Informativeness",
        "average_score": "Average score",
        "hallucination_rate": "Hallucination rate",
    }.items():
        assert f"{scored.metrics[name]:.2f}" == printed[official]
    by_type = [float(value) for value in printed["Average score for each question type"].split(",")]
    assert [scored.metrics[f"score_{name}"] for name in TYPES] == by_type


def test_hallusion_equals_the_official_code() -> None:
    file = oracle.load("hallusionbench.json")
    verdicts = [
        Verdict(
            **{
                name: row[name]
                for name in Verdict.__dataclass_fields__
                if name not in ("truth", "check", "same")
            },
            truth=row["gt_answer"] == "1",
            check=row["gpt4v_output_gpt_check"],
            same=row["same"] == "1",
        )
        for row in file["records"]
    ]
    assert [v.correct for v in verdicts] == [bool(row["correct"]) for row in file["records"]]
    scored, official = hallusion(verdicts, "official"), file["official"]
    for name in ("aAcc", "qAcc", "fAcc", "easy_pair_acc", "hard_pair_acc"):
        assert scored.metrics[name] == official[name]
    assert scored.metrics["figure_score"] == official["figure"].pop("score")
    bias = official["yes_no_bias"]
    assert (scored.metrics["yes_no_diff"], scored.metrics["yes_no_fp"]) == (
        bias["diff"],
        bias["fp"],
    )
    for part in ("question", "pair", "figure"):
        for name, count in official[part].items():
            assert name == "note" or scored.counts[f"{part}_{name}"] == count, (part, name)


def test_ratings() -> None:
    assert rating("Rating: 5, or even rating: 6", "official") is None
    assert rating("rating: 3 ... as said, Rating: 3", "official") == 3
    assert rating("Rating:4", "official") is None and rating("**Rating:** 4", "strict") == 4
    assert rating("rating: 4.5", "strict") is None and rating("rating: 4.", "strict") == 4
    assert rating("rating: 7", "official") is None


def test_mmhal_by_hand_and_without_any_rating() -> None:
    judged = ["Rating: 6", "nothing", "Rating: 2", "Rating: 3"]
    official = mmhal(judged, "official")
    assert official.counts == {"judged": 4, "without_rating": 1, "hallucinated": 2}
    assert official.metrics["average_score"] == 2.75 and official.metrics["score_adversarial"] == 0
    strict = mmhal(judged, "strict")
    assert strict.counts == {"judged": 4, "without_rating": 1, "hallucinated": 1}
    assert strict.metrics["average_score"] == 3.67 and set(strict.metrics) == set(official.metrics)
    assert mmhal(["nothing"], "official").metrics["hallucination_rate"] == 1
    with pytest.raises(InputError, match="no judge's text has a rating"):
        mmhal(["nothing"], "strict")


@given(st.lists(st.integers(0, 6), min_size=1, max_size=40))
def test_mmhal_stays_within_its_bounds(scores: list[int]) -> None:
    scored = mmhal([f"Rating: {score}" for score in scores], "official")
    assert (
        0 <= scored.metrics["informativeness"] <= 100
        and 0 <= scored.metrics["hallucination_rate"] <= 1
    )
    low, high = intervals(scored, resamples=50, seed=0, scale=1)["average_score"]
    assert min(scores) <= low <= high <= max(scores)


def verdict(
    figure: str, question: str, check: str, category: str = "VD", same: bool = False, **other: str
) -> Verdict:
    visual = other.get("visual_input", figure if category == "VS" else str(int(figure) + 1))
    return Verdict(
        category=category,
        subcategory="s",
        set_id=other.get("set_id", "0"),
        figure_id=figure,
        question_id=question,
        visual_input=visual,
        truth=True,
        check=check,
        same=same,
    )


def test_unclear_is_right_only_without_a_figure() -> None:
    assert verdict("0", "0", "2", category="VS").correct
    assert not verdict("1", "0", "2", category="VS").correct and not verdict("0", "0", "2").correct


@pytest.mark.parametrize(
    ("category", "original", "check", "same", "cause"),
    [
        ("VD", "1", "0", True, "Mix"),
        ("VD", "1", "0", False, "VI"),
        ("VD", "1", "2", False, "VI"),
        ("VS", "1", "0", True, "LH"),
        ("VS", "1", "0", False, "VI"),
        ("VS", "1", "2", True, "VI"),
        ("VS", "2", "0", True, "VI"),
    ],
)
def test_the_cause_of_an_error_about_an_edited_figure(
    category: str, original: str, check: str, same: bool, cause: str
) -> None:
    pair = [
        verdict("0", "0", original, category),
        verdict("1", "0", check, category, same, visual_input="2"),
    ]
    counts = hallusion(pair, "official").counts
    assert {name for name in ("LH", "VI", "Mix") if counts[f"pair_{name}"]} == {cause}
    assert sum(counts[f"pair_{name}_cg"] for name in ("LH", "VI", "Mix")) == 1


def test_an_original_is_needed() -> None:
    with pytest.raises(InputError, match="VD_s_0_0: has no answer to figure 0"):
        hallusion([verdict("1", "0", "1")], "official")


@given(st.permutations(range(8)), st.lists(st.sampled_from("012"), min_size=8, max_size=8))
def test_hallusion_knows_no_order_and_every_wrong_pair_has_a_cause(
    order: list[int], checks: list[str]
) -> None:
    places = itertools.product("01", "01", "01")  # set, figure, question
    verdicts = [
        verdict(f, q, check, set_id=s) for (s, f, q), check in zip(places, checks, strict=True)
    ]
    scored = hallusion(verdicts, "official")
    again = hallusion([verdicts[i] for i in order], "official")
    assert again.counts == scored.counts
    assert again.metrics == pytest.approx(scored.metrics, abs=1e-12)
    counts = scored.counts
    assert counts["pair_wrong"] == counts["pair_LH"] + counts["pair_VI"] + counts["pair_Mix"]
    right = hallusion([dataclasses.replace(v, check="1") for v in verdicts], "official")
    assert right.metrics["qAcc"] == right.metrics["fAcc"] == 100
