"""Whether a window of served answers looks like the champion's reference profile.

One two-sample test for each signal, Kolmogorov and Smirnov's, which asks nothing of the form of a
distribution and answers to a change of place, spread or form. How often nothing is taken for a
change is bounded from four sides:

1. A window is of answers about different pictures, one each: two answers about one are alike, and a
   test that counted both would be too sure.
2. Windows do not overlap, so that each answer is tested once.
3. Over the signals of a window, p-values are multiplied by Holm's factors (1979), which holds
   however the signals hang together.
4. All windows are compared with one profile. Where that happens to be odd, all of them see it: a
   test with its full level keeps it over profiles, not over the windows of one. So a test may spend
   a tenth (`SPENT`) of the stated rate; `benchmarks/false_alarms.py` measures what comes of it.

A missing value counts as lower than any other: answers that lose their risk or their third token
are a change like others. What the profile itself never has is not tested. Of a picture's mode the
share is compared that it has in the profile. Risks of a detector that was fitted again are not
compared: the profile has those of the one before. What needs no test: answers of another version
than the champion, which are an alarm when they are more than half of a window.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from adapt.watching.profile import Profile, rounded
from adapt.watching.signals import NAMES

SPENT = 0.1
MODE = "mode"
PLAIN = "flag"  # the policy whose answers are as the profile's: neither steered nor cut
OTHER_VERSION = 0.5  # share of a window
OF_DETECTOR = ("risk", "warned")


@dataclass(frozen=True, kw_only=True)
class Signal:
    """One signal of a window: medians, the largest distance of the distributions, and its p-value.

    `adjusted` is that by Holm's factor; `missing` the share of the window's answers without it.
    """

    name: str
    reference: float
    window: float
    distance: float
    p: float
    adjusted: float
    missing: float

    @property
    def direction(self) -> str:
        """Which way the median went, in words."""
        if math.isnan(self.window):
            return "is missing"
        if self.window == self.reference:
            return "differs"
        return "is higher" if self.window > self.reference else "is lower"


@dataclass(frozen=True, kw_only=True)
class Window:
    """What became of a window: its signals, those that changed most first, and whether to alarm.

    `first` and `last` are the times of its answers (s since 1970), `versions` how many each
    version gave, `limit` what an adjusted p-value must not exceed.
    """

    first: float
    last: float
    answers: int
    versions: Mapping[str, int]
    signals: tuple[Signal, ...]
    limit: float
    is_other: bool

    @property
    def changed(self) -> tuple[Signal, ...]:
        """The signals that have changed."""
        return tuple(one for one in self.signals if one.adjusted <= self.limit)

    @property
    def alarms(self) -> bool:
        """Whether somebody has to know."""
        return self.is_other or bool(self.changed)


def windows(rows: pd.DataFrame, size: int) -> Iterator[pd.DataFrame]:
    """Parts of the rows in their order, each about `size` pictures; what is left makes none.

    A row without a picture's name counts as about one of its own.
    """
    names = rows.picture.fillna("").astype(str).to_numpy()
    start, seen = 0, set[str]()
    for place, name in enumerate(names):
        seen.add(name or f"#{place}")
        if len(seen) == size:
            yield rows.iloc[start : place + 1]
            start, seen = place + 1, set()


def compare(
    profile: Profile, rows: pd.DataFrame, *, false_alarms: float, version: str = ""
) -> Window:
    """Test one window of the log (`log.Log.read`) against the profile of the champion `version`.

    `false_alarms` is the share of windows that may alarm although nothing has changed.
    """
    named = rows.picture.fillna("").astype(str)
    once = rows[(named == "") | ~named.duplicated()]
    names = [name for name in profile.values if name not in OF_DETECTOR or _is_own(rows)]
    pairs = {name: (np.array(profile.values[name]), _column(once, name)) for name in names}
    if profile.modes:
        pairs[MODE] = _modes(profile, once)
    tested = {name: pair for name, pair in pairs.items() if not np.isnan(pair[0]).all()}
    found = [_tested(*pair) for pair in tested.values()]
    adjusted = holm([p for _, p in found])
    signals = [
        Signal(
            name=name,
            reference=_median(pair[0]),
            window=_median(pair[1]),
            distance=distance,
            p=p,
            adjusted=by_holm,
            missing=float(np.isnan(pair[1]).mean()),
        )
        for (name, pair), (distance, p), by_holm in zip(
            tested.items(), found, adjusted, strict=True
        )
    ]
    versions = {str(key): int(n) for key, n in rows.version.fillna("").value_counts().items()}
    others = sum(n for key, n in versions.items() if key != version) if version else 0
    return Window(
        first=float(rows.time.min()),
        last=float(rows.time.max()),
        answers=len(rows),
        versions=versions,
        signals=tuple(sorted(signals, key=lambda one: (one.adjusted, -one.distance))),
        limit=SPENT * false_alarms,
        is_other=others > OTHER_VERSION * len(rows),
    )


def holm(p: Sequence[float]) -> list[float]:
    """p-values times Holm's factors: the smallest by their number, the next by one less, ...

    >>> [round(value, 3) for value in holm([0.01, 0.04, 0.03])]
    [0.03, 0.06, 0.06]
    """
    adjusted, highest = [1.0] * len(p), 0.0
    for rank, place in enumerate(sorted(range(len(p)), key=lambda i: p[i])):
        highest = max(highest, min(1.0, (len(p) - rank) * p[place]))
        adjusted[place] = highest
    return adjusted


def _is_own(rows: pd.DataFrame) -> bool:
    """Whether the detector has warned that the profile's risks are of."""
    return "detector" not in rows or not rows.detector.fillna("").any()


def _tested(reference: NDArray[np.float64], window: NDArray[np.float64]) -> tuple[float, float]:
    """Largest distance of the two distributions, and its p-value."""
    from scipy.stats import ks_2samp

    sides = (np.where(np.isnan(side), -np.inf, side) for side in (reference, window))
    found = ks_2samp(*sides)
    return float(found.statistic), float(found.pvalue)


def _column(rows: pd.DataFrame, name: str) -> NDArray[np.float64]:
    assert name in NAMES
    return np.array(rounded(rows[name].to_numpy(dtype=np.float64)), dtype=np.float64)


def _modes(profile: Profile, rows: pd.DataFrame) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Share in the profile of the mode of each picture: of the profile's own, and of the window's.

    Of several pictures the rarest mode counts; without a picture there is none.
    """
    own = np.repeat(
        [*profile.modes.values()],
        [round(share * profile.pictures) for share in profile.modes.values()],
    )
    shares = [
        min((profile.modes.get(mode, 0.0) for mode in modes), default=math.nan)
        for modes in rows.modes.map(lambda of: [] if of is None else list(of))
    ]
    return own.astype(np.float64), np.array(shares, dtype=np.float64)


def _median(values: NDArray[np.float64]) -> float:
    there = values[~np.isnan(values)]
    return float(np.median(there)) if len(there) else math.nan
