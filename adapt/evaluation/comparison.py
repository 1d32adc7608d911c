"""Arms side by side over the seeds of the world: one table, one chart, and paired differences.

A row of the long table is one arm on one seed; a difference is a paired bootstrap over the images
of all seeds together (`adapt.metrics.bootstrap`), so its interval speaks of images, and the spread
over seeds stands beside it.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from adapt.evaluation.counts import Counted, counted
from adapt.metrics.bootstrap import Interval, difference
from adapt.metrics.headline import HEADLINES
from adapt.names import figure_text

COMPARED = ("hal", "chair_i", "cover", "pope_f1", "colour_accuracy")
"""Metrics of which differences are taken."""
PARTS = ("hal", "chair_i")  # of which a difference is shown as a part too: less of it by so much
FAR = 10.0  # points of mean Cover below the best arm's, beyond which an arm is off the chart
COLUMNS = {
    **{number.key: number.title for number in HEADLINES[:3]},
    "cog": "Cog %",
    "pope_f1": "POPE F1 %",
    "colour_accuracy": "colours %",
    "length": "length",
    HEADLINES[3].key: HEADLINES[3].title,
    "focus_late_early": "focus late/early",
    "amc_late_early": "S_AMC late/early",
    "responsiveness_late_early": "responsiveness late/early",
    "drift_late_early": "drift late/early",
    "fire_rate": "fires %",
    "seconds": "train s",
}


class Change(NamedTuple):
    """One arm against another: the difference in points, and the part of theirs that it is."""

    points: Interval
    part: float


def change(
    metric: str,
    ours: Sequence[pd.DataFrame],
    theirs: Sequence[pd.DataFrame],
    resamples: int,
    seed: int,
) -> Change | None:
    """A metric of one arm minus that of another; each gives judged answers by seed.

    None where it cannot be counted, as where nobody knows what is in the pictures.
    """
    a, b = ([counted(table, metric) for table in tables] for tables in (ours, theirs))
    sides = [[of for of in side if of is not None] for side in (a, b)]
    is_paired = [of.images for of in sides[0]] == [of.images for of in sides[1]]
    assert is_paired and len(a) == len(b), "arms answer the same questions"
    if not sides[0]:
        return None
    above, below = ([_joined(side, name) for side in sides] for name in ("above", "below"))
    points = difference(above[0], below[0], above[1], below[1], resamples, seed)
    whole = 100 * above[1].sum() / below[1].sum()
    return Change(points, points.point / whole if whole else math.nan)


def _joined(side: Sequence[Counted], name: str) -> np.ndarray:
    return np.concatenate([getattr(of, name) for of in side])


def summary(long: pd.DataFrame) -> pd.DataFrame:
    """One row per arm: mean +- standard deviation over seeds.

    `long` has columns arm, seed and those of COLUMNS that were measured.

    >>> long = pd.DataFrame({"arm": ["base", "base"], "seed": [1, 2], "hal": [30.0, 32.0]})
    >>> summary(long).to_dict()
    {'Hal %': {'base': '31.0 +- 1.4'}}
    """
    names = [name for name in COLUMNS if name in long]
    grouped = long.groupby("arm", sort=False)[names]
    mean, spread = grouped.mean(), grouped.std(ddof=1)
    table = pd.DataFrame(index=mean.index)
    for name in names:
        digits = 3 if name.endswith("late_early") else 1
        cells = zip(mean[name], spread[name], strict=True)
        table[COLUMNS[name]] = [_cell(m, s, digits) for m, s in cells]
    return table.rename_axis(index=None)


def _cell(mean: float, spread: float, digits: int) -> str:
    if np.isnan(mean):
        return ""
    return f"{mean:.{digits}f}" + ("" if np.isnan(spread) else f" +- {spread:.{digits}f}")


def differences(changes: Mapping[str, Mapping[str, Change | None]]) -> pd.DataFrame:
    """One row per arm (arm -> metric -> change): points, their interval, the part of hallucination.

    >>> change = Change(Interval(-20.0, -25.0, -15.0), -0.8)
    >>> differences({"sft": {"hal": change, "cover": None}}).to_dict()
    {'Hal %': {'sft': '-20.0 [-25.0, -15.0], -80 %'}, 'Cover %': {'sft': ''}}
    """
    cells = [
        {COLUMNS[metric]: _difference(metric, one) for metric, one in of_arm.items()}
        for of_arm in changes.values()
    ]
    return pd.DataFrame(cells, index=list(changes))


def _difference(metric: str, change: Change | None) -> str:
    if change is None:
        return ""
    part = f", {change.part:+.0%}".replace("%", " %") if metric in PARTS else ""
    point, low, high = change.points
    return f"{point:+.1f} [{low:+.1f}, {high:+.1f}]{part}"


def markdown(table: pd.DataFrame) -> str:
    """The table in Markdown, arms as rows."""
    lines = [["arm", *table.columns], ["---"] * (len(table.columns) + 1)]
    lines += [[*map(str, row)] for row in table.itertuples()]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines) + "\n"


def chart(long: pd.DataFrame, path: Path) -> None:
    """Hal against Cover: one dot per arm and seed, the mean as a larger one; upper left is best.

    An arm that has lost more than `FAR` points of Cover would squeeze the others; the legend gives
    its means instead. Nothing is drawn where they were not measured.
    """
    if not {"hal", "cover"} <= set(long):
        return
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 5.5), layout="constrained")
    axes = figure.subplots()
    best = long.groupby("arm").cover.mean().max()
    for i, (arm, rows) in enumerate(long.groupby("arm", sort=False)):
        hal, cover = rows.hal.mean(), rows.cover.mean()
        style: dict[str, Any] = {"color": f"C{i % 10}", "marker": "o" if i < 10 else "s"}
        label = f"{arm}: Hal {hal:.1f}, Cover {cover:.1f}"
        if cover < best - FAR:
            axes.scatter(
                [], [], s=90, label=f"{figure_text(label)}, off the chart", alpha=0.3, **style
            )
            continue
        axes.scatter(rows.hal, rows.cover, s=16, alpha=0.5, **style)
        axes.scatter(hal, cover, s=90, label=figure_text(label), edgecolors="white", **style)
    finished(figure, axes, "every arm on every seed; large: mean; upper left is best", path)


def finished(figure: Any, axes: Any, title: str, path: Path) -> None:
    """Write a chart of Hal against Cover, with its title, axes and legend."""
    axes.set_xlabel("Hal, % of descriptions with a hallucinated object")
    axes.set_ylabel("Cover, % of true objects mentioned")
    axes.set_title(figure_text(title))
    axes.grid(alpha=0.3)
    figure.legend(loc="outside right upper", frameon=False, fontsize=9)
    figure.savefig(path, dpi=110)
