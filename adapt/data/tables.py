"""Split files: written as rows come, read without their pictures until somebody looks at one.

`adapt/data/columns.py` has the columns. Rows lie in small row groups, so that neither writing nor
reading takes more memory for more rows, and no file is too large to be read back.
"""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Generic, TypeVar, overload

import pyarrow as pa
import pyarrow.parquet as pq

from adapt.data.columns import Kind, described, schema_of
from adapt.data.lazy import Pictures, StoredFile
from adapt.data.schema import Example, Preference, SceneObject, Turn
from adapt.files import whole_file
from adapt.params import require

ROWS_A_GROUP = 1000
PICTURES_A_GROUP = 8 << 20  # bytes, a picture that several rows have counted once
REPEATED_A_GROUP = 64 << 20  # bytes, counted as often as rows have it: what building a group takes
_AT_ONCE = 256  # rows whose texts are made into records together
Row = TypeVar("Row", Example, Preference)


def kind_of_file(path: Path) -> Kind:
    """What the rows of a split file are; InputError where it is none."""
    return StoredFile(path).kind


def read_split(path: Path) -> "Rows[Example]":
    """The questions of a split file; of preference rows, those that they ask."""
    return Rows(StoredFile(path), Example)


def read_preferences(path: Path) -> "Rows[Preference]":
    """The rows of a split file of preference rows; InputError for one of evaluation rows."""
    file = StoredFile(path)
    problem = "has no column chosen: these are evaluation rows, not preferences"
    require(file.kind == "preference", str(path), problem)
    return Rows(file, Preference)


# ---- writing -------------------------------------------------------------------------------------


class Writer:
    """Writes a split file row by row; the same rows give the same bytes.

    The file is complete when the `with` block ends well; after an error it is not readable.
    """

    def __init__(
        self, path: Path, kind: Kind, several: bool, group_bytes: int = PICTURES_A_GROUP
    ) -> None:
        self._schema = described(schema_of(kind, several))
        self._several, self._group_bytes = several, group_bytes
        # The dictionary keeps a picture once per row group although each of its rows has it.
        options = {"dictionary_pagesize_limit": 1 << 30, "write_statistics": False}
        self._file = pq.ParquetWriter(path, self._schema, compression="zstd", **options)
        self._clear()

    def __enter__(self) -> "Writer":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        where: TracebackType | None,
    ) -> None:
        """Write what is left; after an error, only let go of the file."""
        if kind is None:
            self._flush()
            self._file.close()
        else:
            with suppress(OSError):  # a full disk has its error already
                self._file.close()

    def write(self, row: Example | Preference) -> None:
        """Take a row, and write a row group when there is enough for one."""
        pictures = [*row.images, *(row.rejected_images if isinstance(row, Preference) else ())]
        self._rows.append(self._plain(row, pictures[: len(row.images)]))
        for content in pictures:
            self._repeated += len(content)
            self._unique += 0 if content in self._pictures else len(content)
            self._pictures.add(content)
        is_full = self._unique >= self._group_bytes or self._repeated >= REPEATED_A_GROUP
        if is_full or len(self._rows) >= ROWS_A_GROUP:
            self._flush()

    def _plain(self, row: Example | Preference, images: Sequence[bytes]) -> dict[str, Any]:
        values = {name: getattr(row, name, None) for name in self._schema.names}
        values["history"] = [vars(turn) for turn in row.history]
        if row.objects is not None:
            values["objects"] = [vars(thing) for thing in row.objects]
        if isinstance(row, Preference):
            values["rejected_images"] = [*map(_stored, row.rejected_images)]
        assert self._several or len(images) == 1, "a file of single pictures"
        pictures = [*map(_stored, images)]
        return values | ({"images": pictures} if self._several else {"image": pictures[0]})

    def _flush(self) -> None:
        if self._rows:
            table = pa.Table.from_pylist(self._rows, schema=self._schema)
            self._file.write_table(table, row_group_size=len(self._rows))
        self._clear()

    def _clear(self) -> None:
        self._rows: list[dict[str, Any]] = []
        self._pictures: set[bytes] = set()
        self._unique = self._repeated = 0


def write_split(path: Path, records: Sequence[Example] | Sequence[Preference]) -> None:
    """Write records of one kind, which may be lazy ones of the file that is replaced."""
    kind: Kind = "preference" if records and isinstance(records[0], Preference) else "evaluation"
    several = any(len(record.images) != 1 for record in records)
    with whole_file(path) as partial, Writer(partial, kind, several) as writer:
        for record in records:
            writer.write(record)


def _stored(content: bytes) -> dict[str, Any]:
    return {"bytes": content, "path": None}


# ---- reading -------------------------------------------------------------------------------------


class Rows(Sequence[Row], Generic[Row]):
    """The rows of a split file: texts in memory, each row's pictures read when asked for.

    Equal to any sequence of equal rows. Processes may share one by fork or by pickle.
    """

    def __init__(self, file: StoredFile, record: type[Row]) -> None:
        self._file = file
        self._record: type[Any] = record

    def __len__(self) -> int:
        return self._file.texts.num_rows

    @overload
    def __getitem__(self, index: int) -> Row: ...
    @overload
    def __getitem__(self, index: slice) -> list[Row]: ...
    def __getitem__(self, index: int | slice) -> Row | list[Row]:
        """One row, or a list of rows."""
        places = range(len(self))[index]
        if isinstance(places, int):
            return next(self._made(range(places, places + 1)))
        return list(self._made(places))

    def __iter__(self) -> Iterator[Row]:
        return self._made(range(len(self)))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sequence):
            return NotImplemented
        return len(self) == len(other) and all(a == b for a, b in zip(self, other, strict=True))

    def __repr__(self) -> str:
        return f"<{len(self)} rows of {self._file.path}>"

    def _made(self, places: range) -> Iterator[Row]:
        for start in range(0, len(places), _AT_ONCE):
            part, texts = places[start : start + _AT_ONCE], self._file.texts
            is_run = part.step == 1
            table = texts.slice(part.start, len(part)) if is_run else texts.take(list(part))
            for place, values in zip(part, table.to_pylist(), strict=True):
                yield self._row(place, values)

    def _row(self, place: int, values: dict[str, Any]) -> Row:
        for name in ("images", "rejected_images"):
            if (count := values.pop(f"{name}#", None)) is not None:
                values[name] = Pictures(self._file, name, place, count)
        values["history"] = tuple(Turn(**turn) for turn in values["history"] or ())
        for name, made in (("objects", SceneObject.of), ("absent", str)):
            values[name] = None if values[name] is None else tuple(map(made, values[name]))
        if self._file.kind == "evaluation":
            return self._record(**values)
        row: Any = Preference(**{**values, "rejected_images": values["rejected_images"] or ()})
        return row if self._record is Preference else row.asked()
