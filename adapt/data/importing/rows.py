"""What is known of a row on its way through an import, from its file to a verdict on it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from adapt.data.importing.gallery import Seen
from adapt.data.sources import Chunk

Raw = Mapping[str, Any]
"""A row in our column names (`adapt/data/formats/raw.py`), or one as its file has it."""


class RawRow(NamedTuple):
    """A row in our column names, unchecked; or why there is none, and what the file says."""

    file: str
    row: int
    raw: Raw | None
    problem: str
    values: Raw | None


class Verdict(NamedTuple):
    """What is left of a row after the first pass: some hundred bytes.

    `reason` says why it is refused, "" for not. `kind` is that of the record, `split` the one that
    the source gives it. `pictures` are digests of what is stored of its pictures, the first
    `images` of them its own and the others those of the rejected answer. `said` is a digest of its
    texts and pictures without its ids; `objects` is their number, -1 where nobody knows.
    """

    file: str
    row: int
    reason: str = ""
    key: bytes = b""
    id: str = ""
    image_id: str = ""
    kind: str = ""
    split: str = ""
    pictures: tuple[bytes, ...] = ()
    images: int = 0
    said: bytes = b""
    objects: int = -1


@dataclass(frozen=True)
class Piece:
    """What a worker does at once: of a chunk, every one of `stripes` blocks of rows.

    So several workers share a file that is one chunk: reading it costs little beside its pictures.
    A block has `block` rows.
    """

    chunk: Chunk
    stripe: int
    stripes: int
    block: int


@dataclass
class Part:
    """A block of rows: verdicts, pictures not sent before, and what was not known before.

    `checked` is how many of its rows were checked and not known.
    """

    verdicts: list[Verdict] = field(default_factory=list)
    seen: list[Seen] = field(default_factory=list)
    new_rows: list[tuple[bytes, bytes]] = field(default_factory=list)
    new_pictures: list[tuple[bytes, bytes]] = field(default_factory=list)
    checked: int = 0
