"""Parquet: only the columns that are wanted, and some rows at a time.

A small file can unpack to many gigabytes, as pages and as one long text that is repeated: both are
counted before they are unpacked.
"""

import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from adapt.params import InputError
from adapt.score import content
from adapt.score.layout import Layout, Record

_BATCH = 128  # rows; a single one where a cell is a list, whose length nothing bounds
_MOST = 2**29  # bytes of the wanted columns, unpacked


def records(path: Path, layout: Layout) -> Iterator[tuple[int, Record, Sequence[str]]]:
    """The number of each row, its cells that are wanted, and all columns of the file."""
    import pyarrow as pa

    name = content.named(path)
    try:
        yield from _records(path, name, layout)
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        reason = content.shown((str(error).splitlines() or [""])[0])
        raise InputError(f"{name}: is no parquet file that can be read ({reason})") from None


def _records(path: Path, name: str, layout: Layout) -> Iterator[tuple[int, Record, Sequence[str]]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    source = path if content.is_regular(path) else io.BytesIO(content.read_bytes(path))
    schema = pq.read_schema(source)
    wanted = [column for column in schema.names if layout.wants(column)]
    nested = any(pa.types.is_nested(schema.field(column).type) for column in wanted)
    # A text that is repeated stays one text until its length is known.
    texts = [column for column in wanted if _is_text(schema.field(column).type)]
    table = pq.ParquetFile(source, read_dictionary=texts)
    if table.metadata.num_rows > content.MOST_ROWS:
        raise InputError(f"{name}: has more than {content.MOST_ROWS:,} rows")
    _require_small(_pages(table.metadata, wanted), name)
    number = unpacked = 0
    for batch in table.iter_batches(1 if nested else _BATCH, columns=wanted):
        batch.validate(full=True)
        unpacked += sum(map(_length, batch.columns))
        _require_small(unpacked, name)
        for row in batch.to_pylist():
            number += 1
            yield number, row, schema.names


def _is_text(kind: Any) -> bool:
    import pyarrow as pa

    return pa.types.is_string(kind) or pa.types.is_large_string(kind)


def _require_small(unpacked: int, name: str) -> None:
    if unpacked > _MOST:
        problem = f"unpacks to more than {_MOST // content.MIB} MiB"
        raise InputError(f"{name}: {problem}; keep the columns of ids and answers alone")


def _pages(metadata: Any, wanted: Sequence[str]) -> int:
    """The bytes that the pages of the wanted columns say they unpack to."""
    total = 0
    places = [
        place
        for place in range(metadata.num_columns)
        if metadata.schema.column(place).path.split(".")[0] in wanted
    ]
    for number in range(metadata.num_row_groups):
        group = metadata.row_group(number)
        total += sum(group.column(place).total_uncompressed_size for place in places)
    return total


def _length(column: Any) -> int:
    """The bytes of a column once its texts stand in every row."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if not pa.types.is_dictionary(column.type):
        return column.nbytes
    lengths = pc.take(pc.binary_length(column.dictionary), column.indices)
    return pc.sum(lengths).as_py() or 0
