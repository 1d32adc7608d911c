"""Pairs as the data set that TRL's trainer takes, which holds none of them.

The table has a row's id and number; what training reads of it is looked up when the row's turn
comes. So a worker reads the pictures of its own batches, and none stays in the memory.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from datasets import Dataset, Features, List, Value

from adapt.pairs.table import Pair

NAMES = (
    *("images", "history", "question", "chosen", "rejected", "rejected_images"),
    *("anchor", "support", "prefix", "chosen_spans", "rejected_spans", "places"),
)
"""The fields of a pair that training reads, besides its id."""
NUMBER = "number"
FEATURES = Features(
    {
        "id": Value("string"),
        "images": List(Value("large_binary")),
        **dict.fromkeys(("question", "chosen", "rejected"), Value("string")),
        "anchor": List(Value("float32")),
        "support": List(Value("binary")),
    }
)
"""What the least of rows has that a `Dataset` holds itself: one question, the same pictures."""


def dataset(pairs: Sequence[Pair], ids: Sequence[str]) -> Dataset:
    """What training reads of the pairs, in their order. Pictures stay undecoded bytes.

    `ids`: of the pairs, which would have to be read for them.
    """
    table = Dataset.from_dict({"id": [*ids], NUMBER: range(len(ids))})
    return table.with_transform(_Looked(pairs))


def chosen(rows: Dataset, places: Sequence[int]) -> Dataset:
    """The rows with these numbers, which are in order; all of them as they are."""
    return rows if len(places) == len(rows) else rows.select(places)


def with_columns(
    rows: Dataset, columns: Mapping[str, Sequence[float]], places: Sequence[int] | None = None
) -> Dataset:
    """The rows with more columns; how they are looked up stays, which `add_column` forgets.

    `places`: which rows the values belong to; the others have NaN.
    """
    made, way = rows, rows.format
    for name, column in columns.items():
        values = np.full(len(rows), np.nan)
        values[slice(None) if places is None else [*places]] = column
        made = made.add_column(name, values.tolist())
    return made.with_format(way["type"], **way["format_kwargs"])


def ids_of(rows: Dataset) -> list[str]:
    """The ids alone: no row is looked up for them."""
    return [*rows.with_format(None)["id"]]


@dataclasses.dataclass(frozen=True)
class _Looked:
    """Adds what the pairs have to a batch of numbers."""

    pairs: Sequence[Pair]

    def __call__(self, batch: Mapping[str, list[Any]]) -> dict[str, list[Any]]:
        rows = [self.pairs[number] for number in batch[NUMBER]]
        kept = {name: values for name, values in batch.items() if name != NUMBER}
        return kept | {name: [getattr(row, name) for row in rows] for name in NAMES}
