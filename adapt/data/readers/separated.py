"""CSV and TSV: a header, then rows; cells may be quoted and then hold line ends.

What separates the cells of a .csv file is the one of `SEPARATORS` that its header has most of,
since spreadsheets write semicolons in half of the world. Every cell is a text. Rows count from 1;
the header is none, and neither is a blank line.
"""

import csv
from collections.abc import Iterator
from typing import BinaryIO

from adapt.data.readers.encoding import text_start
from adapt.data.readers.record import BLOCK, CUT_BYTES, MAX_COLUMNS, MAX_ROW, Cut, Document, Record
from adapt.params import InputError, shown

SEPARATORS = ",;\t|"


def cuts(document: Document) -> Iterator[Cut]:
    """Ranges of bytes that end with a row; the file is read once, to find them."""
    with document.open() as stream:
        rows = _Rows(document, stream)
        start, first = rows.at, 1
        for number, _ in enumerate(rows, 1):
            if rows.at - start >= CUT_BYTES:
                yield Cut(start=start, stop=rows.at, row=first)
                start, first = rows.at, number + 1
        if rows.at > start:
            yield Cut(start=start, stop=rows.at, row=first)


def records(document: Document, cut: Cut | None = None) -> Iterator[Record]:
    """The rows of a cut, or of the whole file."""
    with document.open() as stream:
        rows = _Rows(document, stream)
        number = 1
        if cut is not None:
            rows.seek(cut.start)
            number = cut.row
        for cells in rows:
            yield _record(document.name, number, rows.header, cells)
            number += 1
            if cut is not None and rows.at >= cut.stop:
                return


def count(document: Document) -> int | None:
    """Not known before the file is read."""
    return None


def _record(file: str, row: int, header: list[str], cells: list[str] | str) -> Record:
    if isinstance(cells, str):
        return Record(file=file, row=row, problem=cells)
    if len(cells) != len(header):
        problem = f"has {len(cells)} cells, and the header has {len(header)}"
        return Record(file=file, row=row, problem=problem)
    for name, cell in zip(header, cells, strict=True):
        if not cell.isascii() and (wrong := [one for one in cell if "\udc80" <= one <= "\udcff"]):
            problem = f"{shown(name)} is not UTF-8 (byte 0x{ord(wrong[0]) - 0xDC00:02x})"
            return Record(file=file, row=row, problem=f"{problem}; save the file as UTF-8")
    return Record(file=file, row=row, values=dict(zip(header, cells, strict=True)))


class _Rows:
    """The rows of a table, each as its cells, or as the reason why it has none.

    `at` is the byte behind the row that came last. Bytes that are no UTF-8 become lone surrogates.
    """

    def __init__(self, document: Document, stream: BinaryIO) -> None:
        csv.field_size_limit(MAX_ROW)
        self._stream = stream
        self.seek(text_start(document, stream))
        first = stream.readline(MAX_ROW).decode("utf-8", "replace")
        tabs = document.name.lower().endswith(".tsv")
        self._separator = "\t" if tabs else max(SEPARATORS, key=first.count)
        self.seek(text_start(document, stream))
        header = next(self, [])
        if isinstance(header, str):
            raise InputError(f"{document.where()}: its header {header}")
        if len(header) > MAX_COLUMNS:
            problem = f"has {len(header)} columns, more than {MAX_COLUMNS}"
            raise InputError(f"{document.where()}: {problem}")
        if len(set(header)) < len(header):
            double = next(name for name in header if header.count(name) > 1)
            raise InputError(f"{document.where()}: two columns are named {shown(double)}")
        self.header = header

    def seek(self, at: int) -> None:
        """Go on at a byte at which a row begins."""
        self._stream.seek(at)
        self.at = self._row_start = at
        self._in_line = False

    def __iter__(self) -> "_Rows":
        return self

    def __next__(self) -> list[str] | str:
        while True:
            self._row_start = self.at
            try:
                reader = csv.reader(self._lines(), delimiter=self._separator, strict=True)
                cells = next(reader)
            except (csv.Error, _TooLong) as error:
                if isinstance(error, _TooLong) or str(error) == "unexpected end of data":
                    # A quote without an end has swallowed what follows: go on with the next line.
                    self.seek(self._row_start)
                    self._in_line = True
                while self._in_line and self._line(BLOCK):
                    pass
                return f"is no row of a table ({error})"
            if cells:
                return cells

    def _lines(self) -> Iterator[str]:
        while line := self._line(MAX_ROW):
            if self.at - self._row_start > MAX_ROW:
                raise _TooLong(f"longer than {MAX_ROW >> 20} MiB")
            yield line.decode("utf-8", "surrogateescape")

    def _line(self, limit: int) -> bytes:
        """The next line, or as much of it as the limit allows; then `_in_line` is set."""
        line = self._stream.readline(limit)
        self.at += len(line)
        self._in_line = not line.endswith(b"\n")
        return line


class _TooLong(Exception):
    """A row that is longer than anybody means, most likely because a quote has no end."""
