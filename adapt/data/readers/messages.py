"""What the messages of an Arrow file unpack to, found before any of them is unpacked.

The buffers of a compressed batch begin with the length that they unpack to. Where they lie is in
the message's metadata, a FlatBuffer, of which this module reads the few fields that it needs
(Apache Arrow's `Message.fbs`).
"""

import struct
from collections.abc import Iterator
from typing import Any

import pyarrow as pa

_DICTIONARY, _BATCH = 2, 3  # types of a message's header
_MAGIC = b"ARROW1\0\0"


def unpacked(source: Any) -> Iterator[int]:
    """Bytes that each message of a file unpacks to, 0 where it is not compressed.

    Ends with the messages, or where they cannot be read: their reader will say so.
    """
    source.seek(0)
    if source.read(len(_MAGIC)) != _MAGIC:
        source.seek(0)
    try:
        for message in pa.ipc.MessageReader.open_stream(source):
            metadata = message.metadata.to_pybytes()
            yield sum(_lengths(metadata, message.body)) if message.body else 0
    except (pa.ArrowException, OSError, struct.error):
        return


def _lengths(metadata: bytes, body: pa.Buffer) -> Iterator[int]:
    """The length before each compressed buffer of a batch or a dictionary."""
    message = _number("I", metadata, 0)
    kind = _number("B", metadata, _field(metadata, message, 1))
    batch = _table(metadata, message, 2)
    if kind == _DICTIONARY:
        batch = _table(metadata, batch, 1)
    if kind not in (_DICTIONARY, _BATCH) or not _field(metadata, batch, 3):
        return
    vector = _table(metadata, batch, 2)
    for number in range(_number("I", metadata, vector)):
        offset, length = struct.unpack_from("<qq", metadata, vector + 4 + 16 * number)
        if length > 0:
            yield max(0, _number("q", body, offset))


def _table(metadata: bytes, table: int, number: int) -> int:
    """Where a table or vector begins to which a field of another table points."""
    field = _field(metadata, table, number)
    return field + _number("I", metadata, field)


def _field(metadata: bytes, table: int, number: int) -> int:
    """Where a field of a table is, or 0 where the table has none."""
    fields = table - _number("i", metadata, table)
    if 4 + 2 * number >= _number("H", metadata, fields):
        return 0
    offset = _number("H", metadata, fields + 4 + 2 * number)
    return table + offset if offset else 0


def _number(kind: str, data: Any, at: int) -> int:
    return int(struct.unpack_from(f"<{kind}", data, at)[0])
