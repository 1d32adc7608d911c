"""What a file that someone else wrote holds: its bytes, its text, its JSON, or one short line.

`-` is standard input. A pipe (`/dev/stdin`, `<(zcat answers.gz)`) can be read once, so what came
through it is kept until `forget`, for whoever asks again.
"""

import codecs
import json
import reprlib
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from adapt.params import InputError

LARGEST = 2**30  # bytes of a file: COCO's largest annotations have 450 MB
MIB = 2**20
MOST_ROWS = 1_000_000  # of a file of answers: no benchmark has a tenth of them
STANDARD_INPUT = Path("-")
PARQUET = b"PAR1"  # how such a file begins

_LARGEST_PIPE = 2**29
_START = 65_536  # bytes in which a file shows what it is
_COLUMNS = 5  # that a message shows
_LONGEST = 60  # characters of a user's text in a message
_MARKS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
# How files begin that no text and no table is, and what to do about them.
_OTHERS = {
    b"PK\x03\x04": "a zip archive or an Excel workbook; save the table as CSV",
    b"\xd0\xcf\x11\xe0": "an Excel workbook; save the table as CSV",
    b"\x1f\x8b": "compressed with gzip; unpack it first, as with <(zcat FILE)",
    b"ARROW1": "an Arrow file; save it as parquet",
    b"FEA1": "a Feather file; save it as parquet",
    b"\xff\xff\xff\xff": "an Arrow stream; save it as parquet",
    b"(\xb5/\xfd": "compressed with zstd; unpack it first, as with <(zstdcat FILE)",
}


def named(path: Path) -> str:
    """The file's name in messages."""
    return "standard input" if path == STANDARD_INPUT else str(path)


def read_bytes(path: Path, largest: int = LARGEST) -> bytes:
    """A file's content, or an `InputError` that names it."""
    with _problems_of(path):
        if is_regular(path):
            with path.open("rb") as file:
                content = file.read(largest + 1)
        else:
            content = _drained(path)
    if len(content) > largest:
        advice = "keep the columns of ids and answers alone"
        raise InputError(f"{named(path)}: is larger than {largest // MIB} MiB; {advice}")
    return content


def begins(path: Path, start: bytes) -> bool:
    """Whether the file's first bytes are these."""
    with _problems_of(path):
        if not is_regular(path):
            return _drained(path).startswith(start)
        with path.open("rb") as file:
            return file.read(len(start)) == start


@contextmanager
def _problems_of(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError) as error:  # a ValueError: a name with a null character
        problem = getattr(error, "strerror", None) or str(error)
        raise InputError(f"{named(path)}: {problem}") from None


def is_regular(path: Path) -> bool:
    """Whether the file can be read twice; `OSError` where there is none."""
    if path == STANDARD_INPUT or str(path).startswith("/dev/"):
        return False
    mode = path.stat().st_mode
    return stat.S_ISREG(mode) or stat.S_ISDIR(mode)  # a folder fails when it is opened


@cache
def _drained(path: Path) -> bytes:
    """All of a pipe, or a byte more than is allowed; of what is neither text nor table, a start."""
    source = 0 if path == STANDARD_INPUT else path
    with open(source, "rb", closefd=source != 0) as file:
        content = file.read(_START)
        if _binary(content) and not content.startswith(PARQUET):
            return content
        return content + file.read(_LARGEST_PIPE + 1 - len(content))


def forget() -> None:
    """Forget what came through pipes."""
    _drained.cache_clear()


def read_text(path: Path, largest: int = LARGEST) -> str:
    """A file's text, `decoded`."""
    return decoded(read_bytes(path, largest), named(path))


def decoded(content: bytes, name: str) -> str:
    """UTF-8, or UTF-16 with its byte order mark; `InputError` names a line that is none."""
    encoding = next((of for mark, of in _MARKS.items() if content.startswith(mark)), "utf-8")
    if problem := _binary(content):
        raise InputError(f"{name}: is {problem}")
    try:
        return content.decode(encoding)
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        kind = encoding.removesuffix("-sig").upper()
        problem = f"is not {kind} (byte 0x{error.object[error.start]:02x}); save the file as UTF-8"
        raise InputError(f"{name} line {line}: {problem}") from None


def _binary(content: bytes) -> str:
    """What a file is that is no text, "" for a text."""
    start = content[:_START]
    if other := next((of for begin, of in _OTHERS.items() if start.startswith(begin)), ""):
        return other
    wide = start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    return "" if wide or b"\0" not in start else "no text, but a binary file"


def read_json(path: Path) -> Any:
    """A whole JSON file."""
    return parse_json(read_text(path), named(path))


def parse_json(text: str, where: str) -> Any:
    """JSON, or an `InputError` that begins with `where`."""
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        at = f" line {error.lineno}" if "\n" in text.strip() else ""
        raise InputError(f"{where}{at}: {no_json(error)}") from None
    except (RecursionError, ValueError) as error:
        raise InputError(f"{where}: {no_json(error)}") from None


def no_json(error: Exception) -> str:
    """What is wrong with a text that should be JSON."""
    if isinstance(error, json.JSONDecodeError):
        return f"is no JSON ({error.msg}, column {error.colno})"
    if isinstance(error, RecursionError):
        return "is nested too deeply"
    return "holds a number of more than 4300 digits"


def list_of_texts(value: Any, where: str) -> list[str]:
    """`value` as a list of texts, or an `InputError` that begins with `where`."""
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise InputError(f"{where} is {shown(value)}, not a list of texts")
    return value


def shown(value: Any) -> str:
    """A value in a message: never longer than a line, never unprintable, however large it is.

    >>> shown("a" * 1000)
    "'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa..."
    >>> shown(list(range(1000)))
    'a list of 1000'
    """
    if isinstance(value, list | Mapping) and len(value) > _LONGEST:
        return f"{'a list' if isinstance(value, list) else 'an object'} of {len(value)}"
    text = repr(value[:_LONGEST]) if isinstance(value, str | bytes) else reprlib.repr(value)
    cut = len(text) > _LONGEST or (isinstance(value, str | bytes) and len(value) > _LONGEST)
    return f"{text[:_LONGEST]}..." if cut else text


def columns_shown(names: Any) -> str:
    """The first of a file's columns."""
    first = [shown(name) for name, _ in zip(names, range(_COLUMNS), strict=False)]
    more = f" and {len(names) - _COLUMNS} more" if len(names) > _COLUMNS else ""
    return (", ".join(name if len(name) <= 30 else f"{name[:30]}..." for name in first)) + more
