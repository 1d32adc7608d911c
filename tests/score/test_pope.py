"""POPE's four parsers and its scores: by hand, by property, and equal to the published programs'
results.
"""

import hashlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapt.metrics.pope import aggregate, parse_yes_no
from adapt.score.pope import PARSERS, Parser, Question, parse, parse_strict, score
from adapt.score.scored import Scored, intervals
from tests.support import oracle

PROGRAMS: dict[str, Parser] = {"official": "official", "vcd": "vcd", "lmms_eval": "lmms-eval"}
ANSWERS = st.sampled_from(
    ["yes", "No", "There is not.", "", "YES, there is a dog.", "I do not know", "nope", "Yes. No."]
)
ASKED = st.lists(st.tuples(st.booleans(), ANSWERS, st.integers(0, 3)), min_size=1, max_size=20)


def scored(labels: list[bool], answers: list[str], parser: Parser) -> Scored:
    questions = {str(i): Question(str(i // 6), label) for i, label in enumerate(labels)}
    return score(
        {str(i): answer for i, answer in enumerate(answers)}, questions, parser, "official"
    )


def assert_equals(ours: Scored, official: dict[str, Any]) -> None:
    for name in ("TP", "FP", "TN", "FN"):
        assert name not in official or ours.counts[name] == official[name], name
    for name in ("accuracy", "precision", "recall", "f1", "yes_ratio"):
        assert name not in official or ours.metrics[name] == official[name], name


def test_all_no_scores_zero_where_the_official_code_divides_by_zero() -> None:
    assert scored([True, False], ["No", "no"], "official").metrics["f1"] == 0


def test_every_official_parse() -> None:
    for case in oracle.load("pope_evaluate.json")["parse_cases"]:
        answer = case["answer"]
        assert (
            parse_yes_no(answer)
            == parse(answer, True, "official")
            == (case["official_pred"] == "yes")
        ), case
        assert parse(answer, True, "vcd") is case["vcd_counts_as_yes_when_label_yes"], case
        assert parse(answer, False, "vcd") is not case["vcd_counts_as_no_when_label_no"], case
        assert parse(answer, True, "lmms-eval") is {"yes": True, "no": False}.get(
            case["lmms_pred"]
        ), case
        assert parse(answer, True, "vlmevalkit") is {"Yes": True, "No": False}.get(
            case["vlmevalkit"]
        ), case


@pytest.mark.parametrize("program", PROGRAMS)
def test_every_official_run(program: str) -> None:
    for run in oracle.load("pope_evaluate.json")["runs"].values():
        labels = [label == "yes" for label in run["labels"]]
        assert_equals(scored(labels, run["answers"], PROGRAMS[program]), run[program])


@pytest.mark.parametrize(
    ("split", "false_yes"), [("random", 8), ("popular", 15), ("adversarial", 24)]
)
def test_full_official_splits(split: str, false_yes: int) -> None:
    case = oracle.load("pope_evaluate.json")["full_coco_splits"][split]
    labels, answers = [], []
    for question in range(1, 3001):  # the formula that the file gives
        labels.append(question % 2 == 1)
        draw = int(hashlib.sha1(f"alpha:{split}:{question}".encode()).hexdigest(), 16) % 100
        answers.append("Yes" if draw < (86 if labels[-1] else false_yes) else "No")
    for program, parser in PROGRAMS.items():
        assert_equals(scored(labels, answers, parser), case[program])
    percentages = aggregate(labels, [parse_yes_no(answer) for answer in answers])
    assert percentages == pytest.approx(
        {n: 100 * case["official"][n] for n in percentages}, abs=1e-9
    )


def test_vlmevalkit_knows_marks_and_removes_no_more_than_its_full_stops() -> None:
    assert parse("No,there is none", True, "vlmevalkit") is False
    assert (
        parse("yes/no", True, "vlmevalkit") is None
        and parse("Is it? yes/no", True, "vlmevalkit") is None
    )
    assert parse("yes" + "." * 32, True, "vlmevalkit") is True
    assert parse("yes" + "." * 33, True, "vlmevalkit") is None


def test_what_is_neither_counts_as_wrong_and_only_lmms_eval_leaves_it_out_of_recall() -> None:
    labels, answers = [True, True, False], ["yes", "maybe", "no"]
    found = {parser: scored(labels, answers, parser).metrics for parser in PARSERS}
    assert found["lmms-eval"]["recall"] == 1 and found["vlmevalkit"]["recall"] == 0.5
    assert found["lmms-eval"]["accuracy"] == found["vlmevalkit"]["accuracy"] == 2 / 3
    assert found["lmms-eval"]["yes_ratio"] == 2 / 3 and found["vlmevalkit"]["yes_ratio"] == 1 / 3
    assert found["official"]["accuracy"] == 1  # "maybe" is a yes


def test_strict_reads_what_is_meant() -> None:
    meant = {
        "NO": False,
        "no\n": False,
        "nope": False,
        "Not really": False,
        "There isn\u2019t one.": False,
        "nothing": False,
        "yes\n": True,
        "Yes - no doubt": True,
        "There's a dog.": True,
        "It is not clear. Yes": True,
        "": None,
        "unknown": None,
        "I can't tell.": None,
        "Another dog is nearby": None,
    }
    assert {answer: parse_strict(answer) for answer in meant} == meant


def test_a_very_long_answer() -> None:
    long = "a dog " * 200_000
    assert [parse(long, True, parser) for parser in PARSERS] == [True, False, None, None]
    assert parse_strict(long) is None


@given(ASKED, st.sampled_from(PARSERS), st.randoms(use_true_random=False))
def test_the_order_does_not_matter_and_bounds_hold(
    asked: list[tuple[bool, str, int]], parser: Parser, draw: Any
) -> None:
    questions = {str(i): Question(str(image), label) for i, (label, _, image) in enumerate(asked)}
    answers = {str(i): answer for i, (_, answer, _) in enumerate(asked)}
    mixed = list(questions)
    draw.shuffle(mixed)
    found = score(answers, questions, parser, "official")
    again = score(answers, {key: questions[key] for key in mixed}, parser, "official")
    assert (again.metrics, again.counts) == (found.metrics, found.counts)
    assert sum(found.counts.values()) == len(asked)
    for name, (low, high) in intervals(found, resamples=20, seed=0, scale=1).items():
        assert 0 <= low <= high <= 1, name


@given(ASKED, st.sampled_from(PARSERS))
def test_asking_everything_twice_changes_no_rate(
    asked: list[tuple[bool, str, int]], parser: Parser
) -> None:
    once = scored([label for label, _, _ in asked], [answer for _, answer, _ in asked], parser)
    twice = scored(
        [label for label, _, _ in asked] * 2, [answer for _, answer, _ in asked] * 2, parser
    )
    assert twice.metrics == pytest.approx(once.metrics)
