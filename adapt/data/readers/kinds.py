"""Which reader reads a file, by the ending of its name in any case."""

import posixpath
from collections.abc import Mapping

from adapt.data.readers import arrow, json_files, json_lines, parquet, separated
from adapt.data.readers.record import Reader

READERS: Mapping[str, Reader] = {
    ".parquet": parquet,
    ".jsonl": json_lines,
    ".ndjson": json_lines,
    ".json": json_files,
    ".csv": separated,
    ".tsv": separated,
    ".arrow": arrow,
}


def reader(name: str) -> Reader:
    """The reader of a file that has one."""
    return READERS[ending(name)]


def ending(name: str) -> str:
    """The ending of a name, in lower case and with its dot."""
    return posixpath.splitext(name)[1].lower()
