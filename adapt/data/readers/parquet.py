"""Parquet, one row group after the other and a few rows at a time.

What a row group unpacks to is known before it is read: from the headers of its pages where the file
is on this machine, and else from what the footer says of it.
"""

from collections.abc import Iterator
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from adapt.data.readers import columns, pages
from adapt.data.readers.record import Cut, Document, Record
from adapt.params import InputError

BATCH_BYTES = 2**26
"""Bytes that the rows which are decoded together may have."""
BATCH_ROWS = 64
MAX_UNPACKED = 2**29
"""Bytes that the largest pages of all columns may have, as they are unpacked at the same time."""
MAX_VALUES = 2**25
"""Values that the lists in one column of a row group may have: a row is read as a whole."""
MAX_GROUP_ROWS = 2**24
"""Rows of a row group."""


def cuts(document: Document) -> Iterator[Cut]:
    """Row groups."""
    row = 1
    with _opened(document) as file:
        for group in range(file.num_row_groups):
            rows = file.metadata.row_group(group).num_rows
            yield Cut(start=group, stop=group + 1, row=row, rows=rows)
            row += rows


def records(document: Document, cut: Cut | None = None) -> Iterator[Record]:
    """The rows of a row group, or of all; one that is damaged costs its rows and no others."""
    with _opened(document) as file:
        for part in [cut] if cut else list(cuts(document)):
            yield from _group(document, file, part)


def count(document: Document) -> int | None:
    """What the file says of itself."""
    with _opened(document) as file:
        return file.metadata.num_rows


def _group(document: Document, file: pq.ParquetFile, cut: Cut) -> Iterator[Record]:
    row, end = cut.row, cut.row + (cut.rows or 0)
    try:
        rows = _rows_together(document, file, cut.start)
        for batch in file.iter_batches(rows, [cut.start], use_threads=False):
            yield from columns.records(document.name, row, batch)
            row += batch.num_rows
        problem = "is missing, although the file counts it"
    except (pages.Damaged, _TooLarge) as error:
        problem = f"lies in a row group that is not read: {error}"
    except (pa.ArrowException, OSError) as error:
        if not columns.is_damage(error):
            raise
        problem = f"cannot be read, nor the others behind it ({columns.reason(error)})"
    for missing in range(row, end):
        yield Record(file=document.name, row=missing, problem=problem)


class _TooLarge(Exception):
    """A row group that takes more memory than anybody means."""


def _rows_together(document: Document, file: pq.ParquetFile, group: int) -> int:
    """How many rows to decode at once, if each held the largest value that there can be."""
    metadata = file.metadata.row_group(group)
    chunks = [metadata.column(number) for number in range(metadata.num_columns)]
    if document.path is None:
        largest = [chunk.total_uncompressed_size for chunk in chunks]
    else:
        with document.open() as stream:
            lists = [file.schema.column(n).max_repetition_level > 0 for n in range(len(chunks))]
            largest = [_largest(stream, *one) for one in zip(chunks, lists, strict=True)]
        if sum(largest) > MAX_UNPACKED:
            size = f"its pages unpack to {sum(largest) >> 20} MiB at a time"
            raise _TooLarge(f"{size}, more than {MAX_UNPACKED >> 20} MiB")
    return min(BATCH_ROWS, max(1, BATCH_BYTES // max(1, *largest)))


def _largest(stream: BinaryIO, chunk: pq.ColumnChunkMetaData, has_lists: bool) -> int:
    """Bytes of the dictionary and the largest other page of a column, unpacked."""
    dictionary = largest = values = 0
    for page in pages.pages(stream, chunk):
        if page.is_dictionary:
            dictionary += page.size
        else:
            largest = max(largest, page.size)
            values += page.values
    if has_lists and values > MAX_VALUES:
        raise _TooLarge(f"its lists have {values} values, more than {MAX_VALUES}")
    return dictionary + largest


def _opened(document: Document) -> pq.ParquetFile:
    try:
        options: dict[str, Any] = {"pre_buffer": False, "buffer_size": 2**16}
        file = pq.ParquetFile(document.path or document.open(), **options)
        columns.require_readable(document, file.schema_arrow)
    except (pa.ArrowException, OSError) as error:
        if not columns.is_damage(error):
            raise
        problem = f"is no parquet file that can be read ({columns.reason(error)})"
        raise InputError(f"{document.where()}: {problem}") from None
    for group in range(file.num_row_groups):
        rows = file.metadata.row_group(group).num_rows
        if not 0 <= rows <= MAX_GROUP_ROWS:
            problem = f"a row group says that it has {rows} rows; {MAX_GROUP_ROWS} are the limit"
            raise InputError(f"{document.where()}: {problem}")
    return file
