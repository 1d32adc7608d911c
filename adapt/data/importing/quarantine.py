"""Rows that were refused: where each is, why, and what it says, one line of JSON for each.

Pictures are named and not copied, long texts are cut, so that a line stays short whatever the row
holds. The file tells about the latest run; without refused rows there is none.
"""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from adapt.data.disk import told
from adapt.files import whole_file
from adapt.params import InputError, plain

FILE = Path("quarantine") / "data.jsonl"
MAX_LINE = 16_384  # characters
MAX_TEXT = 2_000  # characters of a text in it
MAX_ITEMS = 50  # of a list, or keys of a mapping
MAX_DEPTH = 6


class Refused(NamedTuple):
    """A row that is left out; `values` are those of its file, None where it cannot be read."""

    file: str
    row: int
    id: str
    reason: str
    values: Mapping[str, Any] | None = None

    def __str__(self) -> str:
        where = f"{plain(self.file)}: row {self.row} (id {plain(self.id) or 'missing'})"
        return f"{where}: {plain(self.reason)}"


def write(path: Path, refused: Iterable[Refused]) -> None:
    """Write the file anew, whole or not at all."""
    with told(path), whole_file(path) as partial, partial.open("w", encoding="utf-8") as file:
        for one in refused:
            file.write(f"{_line(one)}\n")


def read(path: Path) -> list[Refused]:
    """The rows of the file; none where it is not there."""
    if not path.is_file():
        return []
    lines = path.read_text(encoding="utf-8").split("\n")
    try:
        return [Refused(**json.loads(line)) for line in lines if line]
    except (ValueError, TypeError):
        raise InputError(f"{path}: not a file that stage data has written") from None


def _line(one: Refused) -> str:
    values = None if one.values is None else _short(one.values)
    line = _dumped(one._replace(values=values))
    if len(line) > MAX_LINE:
        keys = [str(key)[:100] for key in list(one.values or ())[:MAX_ITEMS]]
        line = _dumped(one._replace(values={"columns": keys}))
    return line


def _dumped(one: Refused) -> str:
    text = json.dumps(one._asdict(), ensure_ascii=False, default=repr)
    # What does not print, line ends to some readers and half a surrogate pair among it.
    return "".join(char if char.isprintable() else json.dumps(char)[1:-1] for char in text)


def _short(value: Any, depth: int = 0) -> Any:
    """A value without bytes of pictures, cut where it is long."""
    if isinstance(value, bytes | bytearray | memoryview):
        return f"<{len(value)} bytes>"
    if isinstance(value, str):
        more = len(value) - MAX_TEXT
        return value if more <= 0 else f"{value[:MAX_TEXT]}... and {more} characters more"
    if isinstance(value, Mapping | list | tuple) and depth == MAX_DEPTH:
        return "..."
    if isinstance(value, Mapping):
        items = list(value.items())[:MAX_ITEMS]
        return {str(key)[:MAX_TEXT]: _short(item, depth + 1) for key, item in items}
    if isinstance(value, list | tuple):
        return [_short(item, depth + 1) for item in value[:MAX_ITEMS]]
    return value if isinstance(value, int | float | bool | None) else str(value)[:MAX_TEXT]
