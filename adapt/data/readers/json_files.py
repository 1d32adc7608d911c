"""A file of JSON: a list of rows, rows by id, rows wrapped in one key, one row, or JSON Lines.

Which of them it is shows in the beginning of the file and, for an object, in its first keys. Rows
come one at a time, whatever the size of the file; a comma behind the last one does no harm. Of rows
by id, the id becomes the column `key`, unless the row has one.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice
from typing import BinaryIO

from adapt.data.readers import json_lines, values
from adapt.data.readers.encoding import text_start
from adapt.data.readers.json_scan import Scanner
from adapt.data.readers.record import BLOCK, CUT_BYTES, MAX_ROW, Cut, Document, Record, Unreadable
from adapt.params import InputError, shown

KEY = "key"
"""The column of a row's id, where rows stand by id."""
ROW_COLUMNS = frozenset(
    ("chosen", "rejected", "conversations", "messages", "prompt", "question", "completions")
)
"""An object with one of these keys is a row, and no wrapping around rows."""
_LOOKED_AT = 100  # keys of an object
_HEAD = 4096  # bytes of a key and of the beginning of its value
_KEY = re.compile(rb'\s*("(?:[^"\\]|\\.)*")\s*:\s*', re.DOTALL)
_ROWS = re.compile(rb"\[\s*\{")
_CUT_OFF = "is missing: the file is cut off, its rows have no end"
_AFTER = (b"", b"}", b",")  # what may stand behind a list: nothing, or the rest of its wrapping
_LINES, _LIST, _BY_ID, _ROW = "lines", "list", "by id", "row"


@dataclass(frozen=True)
class _Shape:
    """How rows lie in a file, and the byte behind the bracket that opens them."""

    form: str
    offset: int = 0


def cuts(document: Document) -> Iterator[Cut]:
    """Ranges of bytes that end with a row; the file is read once, to find them."""
    with document.open() as stream:
        shape = _shape(document, stream)
        if shape.form == _LINES:
            for cut in json_lines.cuts(document):
                yield replace(cut, form=_LINES)
            return
        if shape.form == _ROW:
            yield Cut(start=shape.offset - 1, stop=document.size, row=1, rows=1, form=_ROW)
            return
        scanner = Scanner(stream, shape.offset, keep=False)
        start, first, row = shape.offset, 1, 1
        for _ in scanner.values():
            row += 1
            is_last = scanner.closed or scanner.stop + 1 >= document.size
            if scanner.stop - start >= CUT_BYTES and not is_last:
                yield Cut(start=start, stop=scanner.stop + 1, row=first, form=shape.form)
                start, first = scanner.stop + 1, row
        yield Cut(start=start, stop=document.size, row=first, form=shape.form)


def records(document: Document, cut: Cut | None = None) -> Iterator[Record]:
    """The rows of a cut, or of the whole file."""
    with document.open() as stream:
        shape = _shape(document, stream) if cut is None else _Shape(cut.form, cut.start)
        if shape.form == _LINES:
            yield from json_lines.records(document, cut)
        elif shape.form == _ROW:
            stream.seek(shape.offset - 1 if cut is None else cut.start)
            content = stream.read(MAX_ROW + 1)
            yield _record(document.name, 1, content if len(content) <= MAX_ROW else None, _ROW)
        else:
            whole = Cut(start=shape.offset, stop=document.size, row=1, form=shape.form)
            yield from _rows(document, stream, cut or whole)


def count(document: Document) -> int | None:
    """Not known before the file is read."""
    return None


def _rows(document: Document, stream: BinaryIO, cut: Cut) -> Iterator[Record]:
    """The values between the commas of a list or an object."""
    row, scanner = cut.row, Scanner(stream, cut.start)
    for _ in scanner.values():
        content = scanner.content()
        is_last = scanner.closed or scanner.stop >= document.size
        if content is None or content.strip() or not is_last:
            yield _record(document.name, row, content, cut.form)
            row += 1
        if scanner.stop + 1 >= cut.stop and cut.stop < document.size:
            return
    if not scanner.closed:
        yield Record(file=document.name, row=row, problem=_CUT_OFF)
    elif cut.form == _LIST and _first(stream, scanner.stop + 1)[0] not in _AFTER:
        yield Record(file=document.name, row=row, problem="stands behind the end of the list")


def _record(file: str, row: int, content: bytes | None, form: str) -> Record:
    """One row from its JSON, or from `"id": {...}`."""
    if content is None:
        return Record(file=file, row=row, problem=f"is longer than {MAX_ROW >> 20} MiB")
    if not content.strip():
        return Record(file=file, row=row, problem="is empty: two commas follow each other")
    if form != _BY_ID:
        return json_lines.record(file, row, content.strip())
    try:
        ((key, value),) = values.row(b"{" + content + b"}").items()
    except Unreadable as error:
        return Record(file=file, row=row, problem=str(error))
    if not isinstance(value, dict):
        problem = f"{shown(key)} is {shown(value)}, not an object with columns"
        return Record(file=file, row=row, problem=problem)
    return Record(file=file, row=row, values={KEY: key, **value})


def _shape(document: Document, stream: BinaryIO) -> _Shape:
    """Tell the forms apart; `InputError` for an object of several lists of rows."""
    at = text_start(document, stream)
    first, at = _first(stream, at)
    if first == b"[":
        return _Shape(_LIST, at + 1)
    if first != b"{":
        return _Shape(_LINES)
    # 1. Where an object ends with its line, and another line follows, they are lines.
    if _is_line(stream, at):
        return _Shape(_LINES)
    # 2. Else its keys tell, and how their values begin.
    scanner = Scanner(stream, at + 1, keep=False)
    starts = [scanner.start for _ in islice(scanner.values(), _LOOKED_AT)]
    lists, keys, others = dict[str, int](), set[str](), 0
    for start in starts:
        stream.seek(start)
        head = stream.read(_HEAD)
        if (key := _KEY.match(head)) is None:
            continue
        name = _text(key[1])
        keys.add(name)
        if _ROWS.match(head, key.end()):
            lists[name] = start + key.end() + 1
        elif head[key.end() : key.end() + 1] != b"{":
            others += 1
    if keys & ROW_COLUMNS or not keys:
        return _Shape(_ROW, at + 1)
    if len(lists) > 1:
        names = ", ".join(map(shown, sorted(lists)))
        problem = f"has several lists of rows ({names}); save each as a file of its own"
        raise InputError(f"{document.where()}: {problem}")
    if lists:
        return _Shape(_LIST, next(iter(lists.values())))
    return _Shape(_ROW if others else _BY_ID, at + 1)


def _is_line(stream: BinaryIO, at: int) -> bool:
    """Whether the object that begins at `at` ends with its line, and another line follows."""
    stream.seek(at)
    end, length = b"", 0
    while (block := stream.readline(BLOCK)) and length <= MAX_ROW:
        length += len(block)
        end = (end + block)[-_HEAD:]
        if block.endswith(b"\n"):
            return end.rstrip().endswith(b"}") and _first(stream, at + length)[0] != b""
    return False


def _first(stream: BinaryIO, at: int) -> tuple[bytes, int]:
    """The first byte from `at` on that is no white space, and where it is."""
    stream.seek(at)
    while block := stream.read(_HEAD):
        if rest := block.lstrip():
            return rest[:1], at + len(block) - len(rest)
        at += len(block)
    return b"", at


def _text(literal: bytes) -> str:
    try:
        return str(json.loads(literal))
    except ValueError:
        return literal.decode("utf-8", "replace")
