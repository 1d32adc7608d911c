"""Arrow's own files, in both of their forms, as `datasets` keeps and saves them.

A file in the streaming form is read from its beginning whichever batch is wanted; on this machine
the batches before are only mapped, not read.
"""

from collections.abc import Iterator
from typing import Any

import pyarrow as pa

from adapt.data.readers import columns, messages
from adapt.data.readers.record import Cut, Document, Record
from adapt.params import InputError

MAX_UNPACKED = 2**30
"""Bytes that a compressed batch may have, unpacked."""
_TOGETHER = 16  # rows that become Python values at once


def cuts(document: Document) -> Iterator[Cut]:
    """Batches."""
    row = 1
    for number, batch in enumerate(_batches(document)):
        rows = None if isinstance(batch, str) else batch.num_rows
        yield Cut(start=number, stop=number + 1, row=row, rows=rows)
        row += rows or 0


def records(document: Document, cut: Cut | None = None) -> Iterator[Record]:
    """The rows of a batch, or of all; where the file is damaged, one record says so."""
    row = 1
    for number, batch in enumerate(_batches(document)):
        is_asked = cut is None or number == cut.start
        if isinstance(batch, str):
            if is_asked:
                yield Record(file=document.name, row=row, problem=batch)
            return
        for start in range(0, batch.num_rows if is_asked else 0, _TOGETHER):
            yield from columns.records(document.name, row + start, batch.slice(start, _TOGETHER))
        if cut is not None and is_asked:
            return
        row += batch.num_rows


def count(document: Document) -> int | None:
    """Not written down in the file."""
    return None


def _batches(document: Document) -> Iterator[pa.RecordBatch | str]:
    """Each batch; at the end, what is wrong with the rest of the file, if anything is."""
    try:
        reader = _opened(document)
        columns.require_readable(document, reader.schema)
    except (pa.ArrowException, OSError) as error:
        if not columns.is_damage(error):
            raise
        problem = f"is no Arrow file that can be read ({columns.reason(error)})"
        raise InputError(f"{document.where()}: {problem}") from None
    try:
        if isinstance(reader, pa.ipc.RecordBatchFileReader):
            yield from (reader.get_batch(number) for number in range(reader.num_record_batches))
        else:
            yield from reader
    except (pa.ArrowException, OSError) as error:
        if not columns.is_damage(error):
            raise
        yield f"cannot be read, nor what is behind it ({columns.reason(error)})"


def _opened(document: Document) -> Any:
    source = pa.memory_map(document.path) if document.path else document.open()
    largest = max(messages.unpacked(source), default=0) if document.path else 0
    if largest > MAX_UNPACKED:
        problem = f"a batch unpacks to {largest >> 20} MiB, more than {MAX_UNPACKED >> 20} MiB"
        raise InputError(f"{document.where()}: {problem}")
    source.seek(0)
    try:
        return pa.ipc.open_file(source)
    except pa.ArrowInvalid:
        source.seek(0)
        return pa.ipc.open_stream(source)
