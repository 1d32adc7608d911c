"""Lines and scales, against values worked out by hand."""

import math
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adapt.report import charts
from adapt.report.charts import Chart, Line, Scale


def test_a_scale_has_round_ticks_and_holds_its_values() -> None:
    scale = Scale.over([0.03, 0.97], 0.0, 100.0)
    assert scale.ticks == (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
    assert scale.at(0.5) == pytest.approx(50.0)
    assert Scale.over([3.0, 17.0], 0.0, 1.0, snug=True).ticks == (5.0, 10.0, 15.0)
    for same in (0.0, 5.0, -1e9, 1e20, -1e99):
        ticks = Scale.over([same], 0.0, 1.0).ticks
        assert ticks[0] <= same <= ticks[-1] and ticks[0] < ticks[-1]


def test_a_line_goes_from_corner_to_corner() -> None:
    line = Line(name="one", points=[(0, 0.0), (10, 1.0)], look="base")
    drawn = charts.svg(Chart(title="t", x="x", y="y", lines=[line]))
    assert 'd="M48.0 196.0L410.0 10.0"' in drawn


def test_what_is_no_number_is_left_out() -> None:
    points = [(0, math.nan), (1, 2.0), (2, math.inf), (3, -1e308), (4, 1e308)]
    line = Line(name="one", points=points, look="base")
    assert charts.svg(Chart(title="", x="", y="", lines=[line])).count("L") == 0
    nothing = Line(name="one", points=[(0, math.nan)], look="base")
    assert charts.svg(Chart(title="", x="", y="", lines=[nothing])) == ""


def test_a_long_line_is_thinned_without_losing_a_peak() -> None:
    points = [(step, 0.0) for step in range(100_000)]
    points[77_777] = (77_777, 9.0)
    points[5] = (5, -3.0)
    kept = charts.thinned(points)
    assert len(kept) <= charts.POINTS + 2
    assert (77_777, 9.0) in kept and (5, -3.0) in kept
    assert kept == sorted(kept)


def test_the_running_mean_is_that_of_the_neighbours() -> None:
    points = [(step, float(step % 2)) for step in range(90)]
    smooth = charts.running(points)
    assert [x for x, _ in smooth] == list(range(90))
    assert smooth[45][1] == pytest.approx(3 / 7)  # three to either side: 42 to 48
    assert smooth[0][1] == pytest.approx(2 / 4)  # 0 to 3


def test_an_interval_lies_left_of_zero_where_the_change_is_negative() -> None:
    drawn = charts.interval(-20.0, -10.0, -15.0, 20.0, "good")
    assert 'x1="4.0" x2="39.5"' in drawn and 'cx="21.8"' in drawn and "good" in drawn


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.tuples(st.integers(-(10**9), 10**9), st.floats()), max_size=8),
    st.text(max_size=20),
)
def test_every_curve_is_drawn_within_its_box(points: list, text: str) -> None:
    line = Line(name=text, points=sorted(points, key=lambda one: one[0]), look="base")
    drawn = charts.svg(Chart(title=text, x=text, y=text, lines=[line]))
    for place in re.findall(r"[ML](-?[\d.]+) (-?[\d.]+)", drawn):
        x, y = map(float, place)
        assert charts.LEFT - 1 <= x <= charts.WIDTH and 0 <= y <= charts.HEIGHT
    assert "nan" not in drawn.partition("<path")[2]
