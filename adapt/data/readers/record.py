"""What every reader gives: `Record`s, read from a `Document` whole or one `Cut` at a time.

The bounds of what is read at all stand here too. They are far above what any published row needs,
and keep a file that somebody made to do harm from taking the machine's memory.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO, Protocol

from adapt.params import InputError

MAX_ROW = 2**27
"""Bytes of one row as it stands in a text file: pictures may be written into it."""
MAX_PICTURE = 2**26
"""Bytes of one picture. The largest camera files, 50 million pixels at JPEG's best, have 40 MB."""
MAX_COLUMNS = 10_000
"""Columns of a table, and keys of one row."""
MAX_DEPTH = 32
"""Levels of lists and mappings in a row, and of types in a table."""
CUT_BYTES = 2**22
"""Bytes of a text file that one `Cut` has, at least, unless the file ends."""
BLOCK = 2**20
"""Bytes that are read from a file at once."""


@dataclass(frozen=True, kw_only=True)
class Record:
    """One row of a file, or the reason why it cannot be read.

    `row` counts from 1; in JSON Lines it is the number of the line. `values` is None where
    `problem` says something, which is one line and begins in the middle of a sentence
    ("is no JSON (...)").
    """

    file: str
    row: int
    values: Mapping[str, Any] | None = None
    problem: str = ""


@dataclass(frozen=True, kw_only=True)
class Cut:
    """A part of a file that can be read by itself.

    `start` and `stop` are bytes of a text file, row groups of parquet or batches of Arrow; `row` is
    the number of the first row; `rows` is how many there are, where the reader knows. `form` is for
    the reader alone: how rows lie in this file.
    """

    start: int
    stop: int
    row: int
    rows: int | None = None
    form: str = ""


class Document(Protocol):
    """One file of a place, as readers see it; see `places.Stored`."""

    @property
    def name(self) -> str:
        """Its name relative to the place, with slashes."""

    @property
    def size(self) -> int:
        """Its bytes."""

    @property
    def path(self) -> str | None:
        """Its path, where the machine has the file."""

    def where(self) -> str:
        """How a message names it."""

    def open(self) -> BinaryIO:
        """Its content, to be read and sought in."""


class Reader(Protocol):
    """A module that reads files of one kind; `InputError` for a file that cannot be read at all."""

    def cuts(self, document: Document) -> Iterator[Cut]:
        """Parts that hold every row once, in order."""

    def records(self, document: Document, cut: Cut | None = None) -> Iterator[Record]:
        """The rows of a cut, or of the whole file."""

    def count(self, document: Document) -> int | None:
        """The number of rows, where it is known without reading them."""


class OutOfReach(InputError):
    """A disk, storage or hub that fails while it is read: no fault of any row."""


class Unreadable(InputError):
    """A row or a picture that cannot be read; of a row, it becomes `Record.problem`."""
