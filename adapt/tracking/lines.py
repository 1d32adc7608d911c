"""Append-only files of checked lines: what a process wrote before it died can be read, and no more.

A record is one line of JSON behind its checksum. A process that dies in the middle of a line, a
disk that is full or a machine that loses power leaves a torn one: every record begins with a line
break of its own, so that the next record is whole, and the torn one is skipped by its checksum.
"""

import errno
import json
import os
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CHUNK = 1 << 20  # bytes that are read at once; a longer line is read whole


@dataclass(frozen=True)
class Line:
    """A record, and the offset in bytes behind it."""

    record: dict[str, Any] | None  # None: damaged
    end: int


def encode(record: Mapping[str, Any]) -> bytes:
    """The bytes of one record.

    >>> encode({"kind": "end"})
    b'\\naae1e05b {"kind":"end"}\\n'
    """
    text = json.dumps(record, separators=(",", ":")).encode()
    return b"\n%08x %s\n" % (zlib.crc32(text), text)


def append(path: Path, record: Mapping[str, Any], *, sync: bool = False) -> None:
    """Add a record to `path`, in one write, so that lines of several processes do not mix.

    `sync` waits until the disk has it. Raises OSError, also where only a part could be written.
    """
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
    file = os.open(path, flags, 0o600)
    try:
        write(file, record)
        if sync:
            os.fsync(file)
    finally:
        os.close(file)


def write(file: int, record: Mapping[str, Any]) -> int:
    """Add a record to an open file; returns its length in bytes."""
    data = encode(record)
    if os.write(file, data) < len(data):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    return len(data)


def read(path: Path, offset: int = 0) -> list[Line]:
    """The whole lines behind `offset`, about `CHUNK` bytes of them; none where there is no file."""
    try:
        with path.open("rb") as file:
            file.seek(offset)
            data = file.read(CHUNK)
            while data and b"\n" not in data.strip(b"\n") and (more := file.read(CHUNK)):
                data += more
    except (FileNotFoundError, NotADirectoryError):
        return []
    found, place = [], offset
    for line in data[: data.rfind(b"\n") + 1].splitlines(keepends=True):
        place += len(line)
        if line.strip(b"\n"):
            found.append(Line(_decode(line.rstrip(b"\n")), place))
    return found


def _decode(line: bytes) -> dict[str, Any] | None:
    checksum, _, text = line.partition(b" ")
    if checksum != b"%08x" % zlib.crc32(text):
        return None
    record: dict[str, Any] = json.loads(text)
    return record
