"""Rows of a parquet file that are read when they are asked for, a row group at a time.

A pair file may be larger than the memory. Its row groups are small (`GROUP_BYTES`), so that a row
at random costs little more than itself, and those that were read last stay: a small file is read
once, a large one never as a whole.
"""

from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any, TypeVar, overload

import pyarrow as pa
import pyarrow.parquet as pq

from adapt.params import InputError

T = TypeVar("T")
GROUP_BYTES = 1 << 20  # of a row group; one larger row is a group of its own
GROUP_ROWS = 1000
KEPT_BYTES = 64 << 20  # of row groups that were read


class RowGroups(Sequence[T]):
    """The rows of a file as a sequence; `made` makes one from its number, from 1, and its columns.

    A copy in another process, by pickle, opens the file there. Raises InputError for a file that is
    missing or damaged, which may show only when a row is read.

    Args:
        path, columns: of the file.
        cast: makes a row group's table what `made` expects.
        file: the file, where it is open: the footer of a large one takes 1.5 KiB for each row
            of 60 kB, and one copy of it is enough.
    """

    def __init__(
        self,
        path: Path,
        columns: Sequence[str],
        cast: Callable[[pa.Table], pa.Table],
        made: Callable[[int, dict[str, Any]], T],
        file: pq.ParquetFile | None = None,
    ) -> None:
        self._arguments = (path, columns, cast, made)
        self.path, self._columns, self._cast, self._made = self._arguments
        self._file = opened(path) if file is None else file
        footer = self._file.metadata
        sizes = [footer.row_group(group).num_rows for group in range(footer.num_row_groups)]
        self._starts = [*accumulate(sizes, initial=0)]
        self._tables: OrderedDict[int, pa.Table] = OrderedDict()
        self._held = 0  # bytes of these

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), self._arguments

    def __len__(self) -> int:
        return self._starts[-1]

    @overload
    def __getitem__(self, index: int) -> T: ...
    @overload
    def __getitem__(self, index: slice) -> list[T]: ...
    def __getitem__(self, index: int | slice) -> T | list[T]:
        """One row, or several."""
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        row = range(len(self))[index]  # IndexError, and from the end, as sequences have it
        group = self._group_of(row)
        table = self._table(group).slice(row - self._starts[group], 1)
        return self._made(row + 1, table.to_pylist()[0])

    def __iter__(self) -> Iterator[T]:
        return (self[row] for row in range(len(self)))

    def _group_of(self, row: int) -> int:
        return bisect_right(self._starts, row) - 1

    def _table(self, group: int) -> pa.Table:
        if group not in self._tables:
            # Those that have waited longest make room first, so that no more are held than said.
            table = self._cast(read_group(self._file, group, self._columns, self.path))
            size = table.nbytes
            while self._tables and self._held + size > KEPT_BYTES:
                self._held -= self._tables.popitem(last=False)[1].nbytes
            self._tables[group] = table
            self._held += size
        self._tables.move_to_end(group)
        return self._tables[group]


def opened(path: Path) -> pq.ParquetFile:
    """The parquet file; FileNotFoundError, or InputError where it is none."""
    try:
        return pq.ParquetFile(path)
    except (pa.ArrowInvalid, OSError) as error:
        if isinstance(error, FileNotFoundError):
            raise
        raise InputError(f"{path}: not a parquet file, or damaged") from None


def read_group(file: pq.ParquetFile, group: int, columns: Sequence[str], path: Path) -> pa.Table:
    """The columns of a row group, pictures among them."""
    try:
        return file.read_row_group(group, columns=[*columns], use_threads=False)
    except (pa.ArrowInvalid, OSError):
        raise InputError(f"{path}: damaged; it cannot be read to its end") from None
