"""What scoring a file of answers gives: official metrics, their counters, and ratios for intervals.

`official` mode counts as the benchmark's published code does, quirks included; `strict` mode mends
what each module names, and `moved` says by how much the metrics move. A `Ratio` holds one numerator
and one denominator per *image*, which is what the bootstrap draws (`adapt.metrics.bootstrap`); its
pooled value is the metric without the official roundings.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from adapt.metrics import bootstrap

Mode = Literal["official", "strict"]
Columns: TypeAlias = dict[str, NDArray[np.int64]]
Ratio: TypeAlias = tuple[NDArray[np.int64], NDArray[np.int64]]


@dataclass(frozen=True)
class Scored:
    """`metrics` as the official code prints them (rounding, scale), `counts` under its names.

    `ratios` has an entry for each metric that is a ratio of sums over images; `variant` says what
    was computed: the benchmark, the mode, the tables and their versions.
    """

    metrics: dict[str, float]
    counts: dict[str, int]
    ratios: dict[str, Ratio]
    variant: dict[str, str]


def ratio(above: Sequence[int], below: Sequence[int]) -> Ratio:
    """Two columns, one row per image, as `Scored.ratios` holds them."""
    return np.array(above, dtype=np.int64), np.array(below, dtype=np.int64)


def per_image(fields: Sequence[str], counted: Iterable[tuple[str, Sequence[int]]]) -> Columns:
    """A column for each counter: its sums for each image, from pairs of image and counters."""
    sums: dict[str, Sequence[int]] = {}
    for image, counters in counted:
        before = sums.get(image, [0] * len(fields))
        sums[image] = [old + new for old, new in zip(before, counters, strict=True)]
    table = np.array(list(sums.values()), dtype=np.int64).reshape(-1, len(fields))
    return dict(zip(fields, table.T, strict=True))


def pooled(ratios: Mapping[str, Ratio]) -> dict[str, float]:
    """The ratio of the sums of each metric; 0 of nothing."""
    return {name: share(*(int(column.sum()) for column in of)) for name, of in ratios.items()}


def share(above: float, below: float) -> float:
    """above / below; 0 of nothing, where most of the official codes stop."""
    return above / below if below else 0.0


def intervals(scored: Scored, resamples: int, seed: int, scale: float) -> dict[str, list[float]]:
    """The 95 % bounds of every ratio, on a scale on which a ratio of one is `scale`.

    >>> alike = Scored(metrics={}, counts={}, ratios={"hal": ratio([1, 1], [2, 2])}, variant={})
    >>> intervals(alike, resamples=10, seed=0, scale=1)
    {'hal': [0.5, 0.5]}
    """
    pairs = scored.ratios.items()
    return bounds({name: bootstrap.interval(*of, resamples, seed) for name, of in pairs}, scale)


def bounds(drawn: Mapping[str, bootstrap.Interval], scale: float) -> dict[str, list[float]]:
    """[low, high] of intervals in percent; a ratio of one becomes `scale` (1 for fractions)."""
    return {name: [scale * of.low / 100, scale * of.high / 100] for name, of in drawn.items()}


def moved(official: Scored, strict: Scored) -> dict[str, float]:
    """By how much each metric moves when the quirks are mended: strict minus official.

    >>> moved(Scored(metrics={"hal": 50.0}, counts={}, ratios={}, variant={}),
    ...       Scored(metrics={"hal": 47.5}, counts={}, ratios={}, variant={}))
    {'hal': -2.5}
    """
    return {name: round(strict.metrics[name] - old, 6) for name, old in official.metrics.items()}
