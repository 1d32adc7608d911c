"""Rows of a file that someone else wrote, in four formats, with errors that name file and row.

    .json, .jsonl   one list of objects, or one object a line (as POPE's .json files are)
    .csv            a header, then rows; ids become text, as everywhere
    .parquet        any columns

Rows count from 1; in JSON Lines a row is a line, in CSV the header is none. An id is an integer or
a text in the file and a text here, so that 7 and "7" are one image. Nothing is guessed: a column
goes by its name or by `rename`.
"""

import csv
import io
import json
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adapt.params import InputError

_LONGEST = 60  # characters of a user's text in a message


@dataclass(frozen=True)
class Row:
    """One row and where it stands; the readers of its cells raise `InputError`."""

    where: str
    cells: Mapping[str, Any]

    def has(self, name: str) -> bool:
        """Whether the row has a cell of this name that holds something."""
        value = self.cells.get(name)
        return value is not None and value == value  # a NaN is a gap in a table

    def error(self, problem: str) -> InputError:
        """What is wrong with this row, to be raised."""
        return InputError(f"{self.where}: {problem}")

    def get(self, *names: str) -> Any:
        """The first cell that is there, of several names for one thing."""
        for name in names:
            if self.has(name):
                return self.cells[name]
        null = ", which is null" if names[0] in self.cells else ""
        columns = ", ".join(map(shown, self.cells)) or "none"
        renamed = f"--rename THEIRS={names[0]} takes a column by another name"
        raise self.error(f"has no {names[0]!r}{null}; its columns are {columns}; {renamed}")

    def text(self, *names: str) -> str:
        """A text, which may be empty."""
        value = self.get(*names)
        if not isinstance(value, str):
            raise self.error(f"{names[0]!r} is {shown(value)}, not a text")
        return value

    def id(self, *names: str) -> str:
        """An integer or a text that is not empty, as text."""
        value = self.get(*names)
        # What a table makes of integers beside a gap.
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int | str) or value == "":
            raise self.error(f"{names[0]!r} is {shown(value)}, not an id (an integer or a text)")
        return str(value)

    def whole(self, name: str) -> int:
        """A whole number."""
        text = self.id(name)
        if not text.isdecimal():
            raise self.error(f"{name!r} is {shown(text)}, not a whole number")
        return int(text)

    def choice(self, name: str, allowed: Iterable[str]) -> str:
        """One of a few texts; integers of these digits are fine."""
        value, allowed = self.id(name), list(allowed)
        if value not in allowed:
            raise self.error(f"{name!r} is {shown(value)}; allowed: {', '.join(allowed)}")
        return value

    def texts(self, *names: str) -> list[str]:
        """A list of texts; in a CSV file, written as a JSON list."""
        value, where = self.get(*names), f"{self.where}: {names[0]!r}"
        return list_of_texts(parse_json(value, where) if isinstance(value, str) else value, where)


def read(path: Path, rename: Mapping[str, str] = {}, bare: str | None = None) -> list[Row]:
    """All rows; `rename` maps columns to ours, list items that are texts become column `bare`."""
    tables = {".csv": _from_csv, ".parquet": _from_parquet}
    numbered = tables[path.suffix](path) if path.suffix in tables else _from_json(path)
    rows = [_row(f"{path} row {number}", value, rename, bare) for number, value in numbered]
    if not rows:
        raise InputError(f"{path}: is empty; it should hold one answer a row")
    return rows


def by_id(rows: Iterable[Row], *names: str) -> dict[str, Row]:
    """Rows by their id; a second row with one id is a mistake."""
    index: dict[str, Row] = {}
    for row in rows:
        key = row.id(*names)
        if key in index:
            raise row.error(f"{names[0]} {shown(key)} is there already ({index[key].where})")
        index[key] = row
    return index


def require_known(rows: Mapping[str, Row], known: Iterable[str], name: str, truth: Path) -> None:
    """Every id of `rows` is one of the `known` ids, which `truth` lists."""
    known = set(known)
    for key, row in rows.items():
        if key not in known:
            raise row.error(f"{name} {shown(key)} is unknown; {truth} does not list it")


def read_json(path: Path) -> Any:
    """A whole JSON file."""
    return parse_json(read_text(path), str(path))


def parse_json(text: str, where: str) -> Any:
    """JSON, or an `InputError` that begins with `where`."""
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        at = f" line {error.lineno}" if "\n" in text.strip() else ""
        raise InputError(f"{where}{at}: is no JSON ({error.msg}, column {error.colno})") from None
    except RecursionError:
        raise InputError(f"{where}: is nested too deeply") from None


def read_text(path: Path) -> str:
    """A UTF-8 file's text without a byte order mark; `InputError` names a line that is none."""
    content = read_bytes(path)
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        problem = f"is not UTF-8 (byte 0x{error.object[error.start]:02x}); save the file as UTF-8"
        raise InputError(f"{path} line {line}: {problem}") from None


def read_bytes(path: Path) -> bytes:
    """A file's content, or an `InputError` that names it."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from None


def list_of_texts(value: Any, where: str) -> list[str]:
    """`value` as a list of texts, or an `InputError` that begins with `where`."""
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise InputError(f"{where} is {shown(value)}, not a list of texts")
    return value


def shown(value: Any) -> str:
    """A value in a message: never longer than a line, never unprintable.

    >>> shown("a" * 1000)
    "'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa..."
    """
    text = repr(value)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."


def _row(where: str, value: Any, rename: Mapping[str, str], bare: str | None) -> Row:
    if bare is not None and isinstance(value, str):
        return Row(where, {bare: value})
    if not isinstance(value, dict):
        raise InputError(f"{where}: is {shown(value)}, not an object with columns")
    for theirs, ours in rename.items():
        if theirs in value and ours in value:
            both = f"has both {theirs!r} and {ours!r}"
            raise InputError(f"{where}: {both}; --rename {theirs}={ours} cannot hold")
    return Row(where, {rename.get(name, name): cell for name, cell in value.items()})


def _from_json(path: Path) -> list[tuple[int, Any]]:
    text = read_text(path)
    if text.lstrip().startswith("["):
        return list(enumerate(parse_json(text, str(path)), 1))
    lines = [(number, line) for number, line in enumerate(text.split("\n"), 1) if line.strip()]
    return [(number, parse_json(line, f"{path} row {number}")) for number, line in lines]


def _from_csv(path: Path) -> list[tuple[int, Any]]:
    limit = csv.field_size_limit(sys.maxsize)  # a cell may be as long as it likes
    try:
        reader = csv.reader(io.StringIO(read_text(path), newline=""), strict=True)
        rows = [row for row in reader if row]
    except csv.Error as error:
        raise InputError(f"{path}: is no CSV table ({error})") from None
    finally:
        csv.field_size_limit(limit)
    header = rows[0] if rows else []
    if len(set(header)) < len(header):
        columns = ", ".join(map(shown, header))
        raise InputError(f"{path}: two columns have one name; its columns are {columns}")
    for number, row in enumerate(rows[1:], 1):
        if len(row) != len(header):
            cells = f"has {len(row)} cells, and the header has {len(header)}"
            raise InputError(f"{path} row {number}: {cells}")
    return list(enumerate((dict(zip(header, row, strict=True)) for row in rows[1:]), 1))


def _from_parquet(path: Path) -> list[tuple[int, Any]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(io.BytesIO(read_bytes(path)))
        table.validate(full=True)
    except (pa.ArrowInvalid, OSError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"{path}: is no parquet file that can be read ({reason})") from None
    return list(enumerate(table.to_pylist(), 1))
