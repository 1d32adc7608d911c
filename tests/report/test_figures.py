"""Rows of the tables: values, intervals, what is better."""

import json

import pytest

from adapt.report import figures
from adapt.report.figures import Interval
from tests.report.pages import record


def test_a_row_has_before_after_and_the_interval_of_the_change() -> None:
    (row,) = figures.headline(record())
    assert (row.title, row.before, row.after, row.change) == ("Hal %", "34.2", "14.4", "-19.8")
    assert (row.range, row.tone, row.better) == ("-23.6 to -16.2", "good", "lower is better")
    assert row.reference == ""


def test_the_champion_is_shown_where_the_gate_asked_about_it() -> None:
    tags = {
        "adapt.against": "champion, version 3",
        "adapt.figures": json.dumps({"Hal %": [16.04, 14.4], "Cover %": [None, 90.0]}),
    }
    (row,) = figures.headline(record(tags=tags))
    assert row.reference == "16.0"
    cut = tags | {"adapt.figures": tags["adapt.figures"][:20]}
    assert figures.headline(record(tags=cut))[0].reference == ""


@pytest.mark.parametrize(
    ("change", "ends", "better", "tone"),
    [
        (-5.0, (-8.0, -2.0), "lower", "good"),
        (-5.0, (-8.0, -2.0), "higher", "bad"),
        (-5.0, (-8.0, 0.5), "lower", ""),  # may be chance
        (0.0, None, "lower", ""),
        (0.1, None, "higher", "good"),
        (0.1, None, "", ""),
        (float("nan"), None, "lower", ""),
    ],
)
def test_a_change_is_good_or_bad_unless_it_may_be_chance(change, ends, better, tone) -> None:
    span = Interval(low=ends[0], high=ends[1], point=change) if ends else None
    assert figures.tone(change, span, better) == tone


def test_benchmarks_have_the_names_of_their_programs() -> None:
    params = {"answer.benchmarks": "({'name': 'pope', 'label': 'pope-popular', 'path': 'x'},)"}
    metrics = {
        "test/base/pope-popular.f1": 80.0,
        "test/tuned/pope-popular.f1": 82.0,
        "test/tuned/unknown.thing": 1.0,
    }
    rows = figures.others(record(params=params, metrics=metrics))
    assert [(row.title, row.after, row.tone) for row in rows] == [
        ("F1 on pope-popular %", "82.0", "good"),
        ("unknown.thing", "1.000", ""),
    ]
    assert figures.labels({"answer.benchmarks": "__import__('os')"})["amber"] == "amber"
