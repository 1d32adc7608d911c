"""The tests of a window: what they find, what they do not, and how often they are wrong."""

import math

import numpy as np
import pandas as pd
import pytest

from adapt.watching import drift, signals
from adapt.watching.profile import Profile
from tests.support import logged


def rows(count: int, seed: int = 0, shift: float = 0.0, **about: object) -> pd.DataFrame:
    """A log of random numbers, by the same law as the profile's but for the shift."""
    rng = np.random.default_rng(seed)
    values = {name: rng.normal(shift * (name == "mass_late"), 1, count) for name in signals.NAMES}
    known = {"id": range(count), "time": np.arange(count, dtype=float), "version": "3"}
    known |= {"picture": [f"p{n}" for n in range(count)], "modes": [["RGB"]] * count}
    return pd.DataFrame({**known, **values}).assign(**about)


def profile(count: int = 300, seed: int = 1000, **changed: object) -> Profile:
    table = rows(count, seed)
    values = {name: tuple(table[name]) for name in signals.NAMES}
    return Profile(pictures=count, values=values | changed, modes={"RGB": 1.0})


def compare(window: pd.DataFrame, rate: float = 0.05, of: Profile | None = None) -> drift.Window:
    return drift.compare(of or profile(), window, false_alarms=rate, version="3")


def test_the_stated_rate_holds() -> None:
    reference, alarms = profile(), 0
    for window in drift.windows(rows(200 * 100), 100):
        alarms += compare(window, 0.05, reference).alarms
    assert alarms <= 0.05 * 200


def test_a_change_of_one_signal_is_found_and_named() -> None:
    window = compare(rows(200, shift=1.0))
    assert window.alarms and [one.name for one in window.changed] == ["mass_late"]
    (one,) = window.changed
    assert one.direction == "is higher" and one.adjusted >= one.p and one.missing == 0
    assert not compare(rows(200)).alarms


def test_a_value_that_goes_missing_is_a_change() -> None:
    window = compare(rows(200, risk=math.nan))
    (one,) = window.changed
    assert (one.name, one.direction, one.missing) == ("risk", "is missing", 1.0)


def test_risks_of_a_detector_that_was_fitted_again_are_not_compared() -> None:
    assert [one.name for one in compare(rows(200, risk=0.9)).changed] == ["risk"]
    again = compare(rows(200, risk=0.9, detector="2"))
    assert not again.alarms and {"risk", "warned"}.isdisjoint(one.name for one in again.signals)
    assert compare(rows(200, shift=1.0, risk=0.9, detector="2")).alarms


def test_what_the_profile_never_has_is_not_tested() -> None:
    blind = profile(risk=(math.nan,) * 300)
    assert "risk" not in [one.name for one in compare(rows(200), of=blind).signals]
    assert not compare(rows(200), of=blind).alarms


def test_one_answer_for_each_picture_is_tested() -> None:
    few = rows(10, shift=0.8)
    many = pd.concat([few] * 20, ignore_index=True)
    assert not compare(many).alarms  # ten answers say little, however often
    own = many.assign(picture="")  # without names each is its own
    assert compare(own).alarms


def test_another_mode_of_pictures_is_a_change() -> None:
    window = compare(rows(200, modes=[["RGBA"]] * 200))
    assert [one.name for one in window.changed] == ["mode"]
    assert not compare(rows(200, modes=[["RGB"]] * 197 + [["L"]] * 3)).alarms


def test_another_version_is_an_alarm_of_its_own() -> None:
    window = compare(rows(200, version="2"))
    assert window.is_other and window.alarms and not window.changed
    assert window.versions == {"2": 200}
    assert not compare(rows(200, version=["3"] * 100 + ["2"] * 100)).is_other


def test_windows_do_not_overlap_and_count_pictures() -> None:
    table = rows(100).assign(picture=[f"p{n // 2}" for n in range(100)])
    parts = list(drift.windows(table, 10))
    assert all(part.picture.nunique() == 10 for part in parts) and len(parts) == 5
    ids = [identity for part in parts for identity in part.id]
    assert ids == sorted(set(ids))
    assert list(drift.windows(table, 60)) == []


@pytest.mark.parametrize(
    ("p", "adjusted"),
    [([], []), ([0.2], [0.2]), ([0.5, 0.001], [0.5, 0.002]), ([0.9, 0.8], [1.0, 1.0])],
)
def test_holm(p: list[float], adjusted: list[float]) -> None:
    assert drift.holm(p) == pytest.approx(adjusted)


def test_numbers_of_a_profile_and_of_a_log_are_equal_where_they_are() -> None:
    third = profile(warned=(round(1 / 3, 6),) * 300)
    assert not compare(rows(200, warned=1 / 3), of=third).alarms
    assert logged.profile(60).values["width"] == (32.0,) * 60
