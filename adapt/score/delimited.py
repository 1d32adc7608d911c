"""Tables as text: CSV, TSV, and what spreadsheets make of them.

The header decides what stands between its cells: a comma, a semicolon, a tab or a bar. Of several
that it has, the one that gives a column of the benchmark; if more than one does, nothing is
guessed. `sep=;`, Excel's own first line, settles it. Rows without any text, which spreadsheets
leave behind, are no rows.
"""

import csv
import re
import sys
from collections.abc import Iterator, Sequence

from adapt.params import InputError
from adapt.score.content import columns_shown
from adapt.score.layout import Layout, Record

_SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}
LONGEST_HEADER = 2**25  # characters: there are tables of a million columns
_LINE = re.compile(r"[^\r\n]*(?:\r\n?|\n)|[^\r\n]+")
_DECLARED = re.compile(r"sep=([,;\t|])[\r\n]+")


def records(text: str, name: str, layout: Layout) -> Iterator[tuple[int, Record, Sequence[str]]]:
    """The number of each row, its cells that are wanted, and all columns of the file."""
    text, declared = text.lstrip("\r\n"), _DECLARED.match(text)
    text = text[declared.end() :] if declared else text
    separator = declared[1] if declared else _separator(text, name, layout)
    rows = (row for row in _cells(text, separator, name) if any(map(str.strip, row)))
    header = [cell.strip() for cell in next(rows, [])]
    places = [place for place, column in enumerate(header) if layout.wants(column)]
    wanted = [header[place] for place in places]
    if len(set(wanted)) < len(wanted):
        doubled = next(column for column in wanted if wanted.count(column) > 1)
        columns = columns_shown(header)
        problem = f"two columns have one name, {columns_shown([doubled])}; its columns are"
        raise InputError(f"{name}: {problem} {columns}")
    for number, row in enumerate(rows, 1):
        if len(row) < len(header) or any(row[len(header) :]):
            cells = f"has {len(row)} cells, and the header has {len(header)}"
            raise InputError(f"{name} row {number}: {cells} (parted by {_SEPARATORS[separator]})")
        yield number, {header[place]: row[place] for place in places}, header


def _separator(text: str, name: str, layout: Layout) -> str:
    """What stands between the cells of the header."""
    line = _LINE.match(text)
    header = line[0] if line else ""
    if len(header) > LONGEST_HEADER:
        raise InputError(f"{name}: is no table; its first line has {len(header):,} characters")
    unquoted = re.sub(r'"[^"]*"?', "", header)
    there = [separator for separator in _SEPARATORS if separator in unquoted]
    if len(there) < 2:
        return there[0] if there else ","
    fitting = [one for one in there if any(map(layout.knows, _names(header, one)))]
    if len(fitting) != 1:
        kinds = " and ".join(_SEPARATORS[separator] for separator in there)
        advice = "save the table with one of them"
        raise InputError(f"{name}: its header has {kinds} between its columns; {advice}")
    return fitting[0]


def _names(header: str, separator: str) -> list[str]:
    try:
        return [cell.strip() for cell in next(csv.reader([header], delimiter=separator), [])]
    except csv.Error:
        return []


def _cells(text: str, separator: str, name: str) -> Iterator[list[str]]:
    limit = csv.field_size_limit(sys.maxsize)  # a cell may be as long as it likes
    try:
        lines = (line[0] for line in _LINE.finditer(text))
        yield from csv.reader(lines, delimiter=separator, strict=True)
    except csv.Error as error:
        problem = f"is no CSV table with {_SEPARATORS[separator]} ({error})"
        raise InputError(f"{name}: {problem}") from None
    finally:
        csv.field_size_limit(limit)
