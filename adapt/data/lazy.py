"""A split file whose texts are read once, and whose pictures are read when somebody looks at one.

The pictures of a file lie in small row groups (`tables.Writer`), so that one row costs one small
read, wherever it is. A process keeps the groups it has used last, of all files together: rows that
follow each other cost one read for all. Nothing stays open, so that a forked process shares no
place in a file with its parent, and a pickled row is as small as its texts.
"""

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from functools import cached_property, lru_cache
from itertools import accumulate
from pathlib import Path
from typing import Any, overload

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from adapt.data.columns import OPTIONAL, Kind, cast, schema_of
from adapt.params import InputError, require

GROUPS_KEPT = 8  # row groups of pictures that a process keeps: 8 MB, 64 where rows share many


class StoredFile:
    """A split file as it was when it was opened.

    Its size and the time of its last change are part of its identity: a file that is replaced while
    rows of it are in use is an `InputError` and not a mixture of two.
    """

    def __init__(self, path: Path) -> None:
        self.path, self._place = path, path.absolute()
        self._stamp = self._present()

    def __eq__(self, other: object) -> bool:
        is_file = isinstance(other, StoredFile)
        return is_file and self.__getstate__() == other.__getstate__()

    def __hash__(self) -> int:
        return hash((self._place, self._stamp))

    def __getstate__(self) -> dict[str, Any]:
        return {name: vars(self)[name] for name in ("path", "_place", "_stamp")}

    @cached_property
    def kind(self) -> Kind:
        """What its rows are, by its columns."""
        return "preference" if "chosen" in self._names else "evaluation"

    @cached_property
    def texts(self) -> pa.Table:
        """All columns but pictures, of which there are counts: `images#`, `rejected_images#`."""
        known = schema_of(self.kind, "images" in self._names)
        missing = [name for name in known.names if name not in [*self._names, *OPTIONAL]]
        require(not missing, str(self.path), f"missing column {', '.join(missing)}")
        for column in self._pictures.values():
            parts = {leaf.rpartition(".")[2] for leaf in self._leaves(column)}
            problem = f"column {column} has no pictures as {{bytes, path}}; adapt.data convert does"
            require({"bytes", "path"} <= parts, str(self.path), problem)
        table = self._table([name for name in known.names if name in self._names])
        for name, column in self._pictures.items():
            table = table.append_column(f"{name}#", _counts(table[column], len(table)))
            table = table.drop_columns(column)
        absent = [field for field in known if field.name not in self._names]
        for field in absent:
            table = table.append_column(field, pa.nulls(len(table), field.type))
        fields = [
            known.field(n) if n in known.names else table.field(n) for n in table.column_names
        ]
        return cast(table, pa.schema(fields), self.path).combine_chunks()

    def contents(self, name: str, row: int) -> tuple[bytes, ...]:
        """The pictures of a row in `images` or `rejected_images`."""
        group = bisect_right(self._starts, row) - 1
        value = _group(self, self._pictures[name], group)[row - self._starts[group]].as_py()
        found = value if isinstance(value, list) else [value]
        is_whole = all(one and one["bytes"] is not None for one in found)
        require(is_whole, f"{self.path}: row {row + 1}", f"{name}: a picture without bytes")
        return tuple(one["bytes"] for one in found)

    def group(self, column: str, group: int) -> pa.Array:
        """The column of pictures in a row group, without paths."""
        problem = "was replaced while its rows are in use; start again"
        require(self._present() == self._stamp, str(self.path), problem)
        leaves = [leaf for leaf in self._leaves(column) if leaf.endswith(".bytes")]
        try:
            with pq.ParquetFile(self._place, metadata=self._footer) as file:
                return file.read_row_group(group, columns=leaves)[column].combine_chunks()
        except (pa.ArrowException, OSError):
            raise InputError(f"{self.path}: not a parquet file, or damaged") from None

    # ---- the file itself -------------------------------------------------------------------------

    def _present(self) -> tuple[int, int]:
        try:
            found = self._place.stat()
        except OSError as error:
            reason = "not found" if isinstance(error, FileNotFoundError) else error.strerror
            raise InputError(f"{self.path}: {reason}") from None
        return found.st_mtime_ns, found.st_size

    @cached_property
    def _footer(self) -> pq.FileMetaData:
        try:
            return pq.read_metadata(self._place)
        except (pa.ArrowException, OSError):
            raise InputError(f"{self.path}: not a parquet file, or damaged") from None

    @cached_property
    def _names(self) -> list[str]:
        return self._footer.schema.to_arrow_schema().names

    @cached_property
    def _pictures(self) -> dict[str, str]:
        """The file's columns of pictures, by their names in a record."""
        names = {"images": "images" if "images" in self._names else "image"}
        if self.kind == "preference" and "rejected_images" in self._names:
            names["rejected_images"] = "rejected_images"
        return names

    @cached_property
    def _starts(self) -> list[int]:
        """The first row of every row group."""
        rows = [self._footer.row_group(i).num_rows for i in range(self._footer.num_row_groups)]
        return [0, *accumulate(rows[:-1])]

    def _leaves(self, column: str) -> list[str]:
        """What parquet stores of a column, as in `images.list.element.bytes`."""
        schema = self._footer.schema
        paths = [schema.column(i).path for i in range(len(schema))]
        return [path for path in paths if path.partition(".")[0] == column]

    def _table(self, names: Sequence[str]) -> pa.Table:
        """The columns without the bytes of pictures; a picture's path is enough to count it."""
        pictures = [f"{column}." for column in self._pictures.values()]
        leaves = [
            leaf
            for name in names
            for leaf in self._leaves(name)
            if not (leaf.startswith(tuple(pictures)) and leaf.endswith(".bytes"))
        ]
        try:
            with pq.ParquetFile(self._place, metadata=self._footer) as file:
                return file.read(columns=leaves)
        except (pa.ArrowException, OSError):
            raise InputError(f"{self.path}: not a parquet file, or damaged") from None


def _counts(pictures: pa.ChunkedArray, rows: int) -> pa.Array:
    """How many pictures each row has, in a column of pictures or of lists of them."""
    if pa.types.is_list(pictures.type) or pa.types.is_large_list(pictures.type):
        counted = pc.fill_null(pc.list_value_length(pictures), 0)
        return counted.cast(pa.int64())
    return pa.repeat(pa.scalar(1, pa.int64()), rows)


@lru_cache(maxsize=GROUPS_KEPT)
def _group(file: StoredFile, column: str, group: int) -> pa.Array:
    return file.group(column, group)


class Pictures(Sequence[bytes]):
    """A row's pictures, in its file until they are asked for; equal to a tuple of equal bytes."""

    def __init__(self, file: StoredFile, name: str, row: int, count: int) -> None:
        self._file, self._name, self._row, self._count = file, name, row, count

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, index: int) -> bytes: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[bytes, ...]: ...
    def __getitem__(self, index: int | slice) -> bytes | tuple[bytes, ...]:
        """The bytes of one picture, or of several."""
        return self._contents()[index]

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, tuple | Pictures):
            return NotImplemented
        return len(self) == len(other) and self._contents() == tuple(other)

    def __hash__(self) -> int:
        return hash(self._contents())

    def __repr__(self) -> str:
        return f"<{self._count} pictures of row {self._row} of {self._file.path}>"

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._contents())

    def _contents(self) -> tuple[bytes, ...]:
        return self._file.contents(self._name, self._row) if self._count else ()
