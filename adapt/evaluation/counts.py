"""What is counted in judged answers for each metric that is a ratio of sums: by answer, by image.

The rows are those of `judged.parquet` (`adapt/evaluation/judge.py`). The intervals of `evaluate`,
of the gate and of a comparison all resample these counts.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

Column = Callable[[pd.DataFrame], pd.Series]


@dataclass(frozen=True, eq=False)
class Counted:
    """A ratio of sums over images: numerators and denominators, one of each for every image."""

    images: tuple[str, ...]
    above: np.ndarray
    below: np.ndarray

    def __post_init__(self) -> None:
        if not self.above.shape == self.below.shape == (len(self.images),):
            raise ValueError(f"Counted: expected one entry for each of {len(self.images)} images")
        if (self.above[self.below == 0] != 0).any():
            raise ValueError("Counted: counts something of nothing")

    @property
    def ratio(self) -> float:
        """The pooled ratio; NaN of nothing."""
        below = float(self.below.sum())
        return float(self.above.sum()) / below if below else float("nan")


@dataclass(frozen=True)
class Count:
    """One metric: which answers it is about, what is counted in each, and what of."""

    rows: Callable[[pd.DataFrame], pd.DataFrame]
    above: Column
    below: Column


def described(judged: pd.DataFrame) -> pd.DataFrame:
    """The descriptions of pictures whose objects are known."""
    return judged[(judged.kind == "describe") & judged.truth.notna()]


def sizes(column: pd.Series) -> pd.Series:
    """How many entries the list in each row has; 0 where there is none."""
    return column.map(lambda names: 0 if names is None else len(names)).astype(int)


def _yes_no(judged: pd.DataFrame) -> pd.DataFrame:
    asked = judged[judged.kind == "exists"]
    return asked.astype({"yes": bool, "right": bool})


def _colours(judged: pd.DataFrame) -> pd.DataFrame:
    asked = judged[(judged.kind == "colour") & judged.right.notna()]
    return asked.astype({"right": bool})


def _each(rows: pd.DataFrame) -> pd.Series:
    return pd.Series(1, index=rows.index)


def _label(rows: pd.DataFrame) -> pd.Series:
    return rows.yes == rows.right


COUNTS: Mapping[str, Count] = {
    "hal": Count(described, lambda rows: sizes(rows.hallucinated).gt(0), _each),
    "chair_i": Count(
        described, lambda rows: sizes(rows.hallucinated), lambda rows: sizes(rows.objects_mentioned)
    ),
    "cover": Count(described, lambda rows: sizes(rows.covered), lambda rows: sizes(rows.truth)),
    "cog": Count(described, lambda rows: sizes(rows.cog), lambda rows: sizes(rows.targets)),
    "pope_accuracy": Count(_yes_no, lambda rows: rows.right, _each),
    "pope_precision": Count(_yes_no, lambda rows: rows.yes & rows.right, lambda rows: rows.yes),
    "pope_recall": Count(_yes_no, lambda rows: rows.yes & rows.right, _label),
    "pope_f1": Count(
        _yes_no,
        lambda rows: 2 * (rows.yes & rows.right).astype(int),
        lambda rows: rows.yes.astype(int) + _label(rows).astype(int),
    ),
    "pope_yes_ratio": Count(_yes_no, lambda rows: rows.yes, _each),
    "colour_accuracy": Count(_colours, lambda rows: rows.right, _each),
}


def counted(judged: pd.DataFrame, metric: str) -> Counted | None:
    """One arm's answers counted for a metric, by image; None where nothing can be counted.

    A picture may have several questions: the bootstrap draws it with all of them.
    """
    count = COUNTS[metric]
    rows = count.rows(judged)
    if rows.empty:
        return None
    columns = {"above": count.above(rows).astype(int), "below": count.below(rows).astype(int)}
    total = pd.DataFrame(columns).groupby(rows.image_id.astype(str), sort=True).sum()
    above, below = (total[name].to_numpy(dtype=np.int64) for name in columns)
    return Counted(tuple(total.index), above, below) if below.any() else None
