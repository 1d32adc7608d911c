"""Rows of a file that someone else wrote, whatever its form, with errors that name file and row.

    JSON in many shapes         `documents`
    CSV, TSV, ...               a header, then rows (`delimited`)
    parquet                     any columns (`columnar`)

What a file holds decides, and its ending only where that leaves a doubt. Rows count from 1; in JSON
Lines a row is a line, in a table the header is none. An id is an integer or a text in the file and
a text here, so that 7, "7" and a table's 7.0 are one image. Nothing is guessed: a column goes by
its name or by `rename`.
"""

import ast
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adapt.params import InputError
from adapt.score import columnar, content, delimited, documents
from adapt.score.content import columns_shown, list_of_texts, named, parse_json, shown
from adapt.score.ids import Ids, id_of
from adapt.score.layout import Layout

LARGEST_TEXT = 2**28  # bytes of a file of rows
LONGEST = 2_000_000  # characters of an answer, and some hours of a tagger's time
EVERY_COLUMN = Layout()

_TEXT = r"""(?:'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")"""
_PYTHON_LIST = re.compile(rf"\[(?:{_TEXT}(?:, {_TEXT})*)?\]", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Row:
    """One row and where it stands; the readers of its cells raise `InputError`.

    `columns` are all that the file has, where `cells` are only those that are read.
    """

    where: str
    cells: Mapping[str, Any]
    columns: Sequence[str] | None = None

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
        columns = columns_shown(self.cells if self.columns is None else self.columns) or "none"
        renamed = f"--rename THEIRS={names[0]} takes a column by another name"
        raise self.error(f"has no {names[0]!r}{null}; its columns are {columns}; {renamed}")

    def text(self, *names: str) -> str:
        """A text, which may be empty."""
        value = self.get(*names)
        if not isinstance(value, str):
            raise self.error(f"{names[0]!r} is {shown(value)}, not a text")
        if len(value) > LONGEST:
            problem = f"has {len(value):,} characters, more than {LONGEST:,}"
            raise self.error(f"{names[0]!r} {problem}")
        return value

    def id(self, *names: str) -> str:
        """An integer or a text that is not empty, as text; a whole float is an integer."""
        value = self.get(*names)
        key = id_of(value)
        if key is None:
            raise self.error(f"{names[0]!r} is {shown(value)}, not an id (an integer or a text)")
        return key

    def whole(self, name: str) -> int:
        """A whole number."""
        text = self.id(name)
        if not text.isdecimal() or len(text) > 18:
            raise self.error(f"{name!r} is {shown(text)}, not a whole number")
        return int(text)

    def choice(self, name: str, allowed: Iterable[str]) -> str:
        """One of a few texts; integers of these digits are fine."""
        value, allowed = self.id(name), list(allowed)
        if value not in allowed:
            raise self.error(f"{name!r} is {shown(value)}; allowed: {', '.join(allowed)}")
        return value

    def texts(self, *names: str) -> list[str]:
        """A list of texts; in a table of text, a JSON list, or Python's, as pandas writes it."""
        value, where = self.get(*names), f"{self.where}: {names[0]!r}"
        if isinstance(value, str):
            listed = _PYTHON_LIST.fullmatch(value)
            value = ast.literal_eval(value) if listed else parse_json(value, where)
        return list_of_texts(value, where)


def read(path: Path, rename: Mapping[str, str] = {}, layout: Layout = EVERY_COLUMN) -> list[Row]:
    """All rows; `rename` maps columns to ours."""
    layout = Layout(layout.id, layout.answer, layout.columns, rename)
    name, rows = content.named(path), []
    for row in _rows(path, name, layout):
        rows.append(row)
        if len(rows) > content.MOST_ROWS:
            raise InputError(f"{name}: has more than {content.MOST_ROWS:,} rows")
    if not rows:
        raise InputError(f"{name}: is empty; it should hold one answer a row")
    return rows


def _rows(path: Path, name: str, layout: Layout) -> Iterator[Row]:
    ending = path.suffix.lower()
    if ending == ".parquet" or content.begins(path, content.PARQUET):
        for number, cells, columns in columnar.records(path, layout):
            yield _row(f"{name} row {number}", cells, layout, columns)
        return
    text = content.read_text(path, LARGEST_TEXT)
    if text.lstrip()[:1] in ("{", "[") or ending in _JSON:
        for number, value in documents.records(text, name, layout):
            yield _row(f"{name} row {number}", value, layout, None)
        return
    for number, cells, columns in delimited.records(text, name, layout):
        yield _row(f"{name} row {number}", cells, layout, columns)


_JSON = (".json", ".jsonl", ".ndjson")


def by_id(rows: Iterable[Row], *names: str) -> dict[str, Row]:
    """Rows by their id; a second row with one id is a mistake."""
    index: dict[str, Row] = {}
    for row in rows:
        key = row.id(*names)
        if key in index:
            raise row.error(f"{names[0]} {shown(key)} is there already ({index[key].where})")
        index[key] = row
    return index


def by_known_id(rows: Iterable[Row], name: str, ids: Ids, truth: Path) -> dict[str, Row]:
    """Rows by the ids of `truth` that their own mean; each is one, and no two are the same."""
    index: dict[str, Row] = {}
    for row in rows:
        spelling = row.id(name)
        found = ids.find(spelling)
        what = f"{name} {shown(spelling)}"
        if not found:
            raise row.error(f"{what} is unknown; {named(truth)} does not list it")
        if len(found) > 1:
            several = columns_shown(sorted(found))
            raise row.error(f"{what} may be {several}; use the ids of {named(truth)}")
        (key,) = found
        if key in index:
            raise row.error(f"{what} is there already ({index[key].where})")
        index[key] = row
    return index


def _row(where: str, value: Any, layout: Layout, columns: Sequence[str] | None) -> Row:
    if isinstance(value, str) and layout.answer and not layout.id:
        return Row(where, {layout.answer: value})
    if not isinstance(value, dict):
        raise InputError(f"{where}: is {shown(value)}, not an object with columns")
    for theirs, ours in layout.rename.items():
        if theirs in value and ours in value and theirs != ours:
            both = f"has both {theirs!r} and {ours!r}"
            raise InputError(f"{where}: {both}; --rename {theirs}={ours} cannot hold")
    if not layout.rename:
        return Row(where, value, columns)
    cells = {layout.rename.get(name, name): cell for name, cell in value.items()}
    return Row(where, cells, columns)
