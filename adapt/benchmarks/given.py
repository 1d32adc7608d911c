"""Answers that are in memory, where `adapt.score` expects a file of them.

So that the pipeline's figures and those of `python -m adapt.score` over a written file come from
one reader and one count.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adapt.score.forms import File
from adapt.score.layout import Layout
from adapt.score.rows import Row


@dataclass(frozen=True)
class Given(File):
    """A `File` whose rows are these; its path is what messages call it."""

    table: tuple[Row, ...] = ()

    def rows(self, layout: Layout) -> list[Row]:
        """The rows, which have the columns of the layout already."""
        return list(self.table)


def given(label: str, cells: Iterable[Mapping[str, Any]]) -> Given:
    """Rows of the columns that the benchmark's reader takes."""
    table = tuple(Row(f"{label} answer {n}", dict(row)) for n, row in enumerate(cells, 1))
    return Given(Path(label), {}, table)


def optional(path: str | None) -> Path | None:
    """A file that may be named."""
    return None if path is None else Path(path)
