"""The first pass over a source: a verdict on every row, from workers, in the source's order."""

import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from itertools import islice, zip_longest
from pathlib import Path

from adapt import environment
from adapt.data.formats.detection import HEAD, Recognised, detect
from adapt.data.importing import gallery
from adapt.data.importing.checking import PICTURES, STORE, Checking
from adapt.data.importing.rows import Part, Piece, Verdict
from adapt.data.importing.verdicts import Verdicts, code_version
from adapt.data.likeness import near
from adapt.data.schema import vocabulary_of
from adapt.data.settings import Config
from adapt.data.sources import Chunk, File, Source
from adapt.data.workers import parts
from adapt.progress import track

VOCABULARY = "vocabulary.json"
BLOCK = 64  # rows whose verdicts a worker sends together
FEW_ROWS = 256  # are checked sooner than workers have started


@dataclass(kw_only=True)
class Survey:
    """What the first pass has found.

    `blocks` are the verdicts of every piece as they came. `fingerprints` are of pictures by the
    digest of what is stored of them, `came` their keys, `known` is how many rows were known before.
    """

    checking: Checking
    pieces: list[Piece]
    blocks: list[list[list[Verdict]]]
    fingerprints: dict[bytes, bytes] = field(default_factory=dict)
    came: set[bytes] = field(default_factory=set)
    known: int = 0

    def chunks(self) -> Iterator[tuple[Chunk, list[Verdict]]]:
        """Every chunk with the verdicts on its rows, in the order of the source."""
        for first, piece in enumerate(self.pieces):
            if piece.stripe == 0:
                stripes = self.blocks[first : first + piece.stripes]
                rounds = zip_longest(*stripes, fillvalue=[])
                yield piece.chunk, [one for blocks in rounds for block in blocks for one in block]

    def rows(self) -> list[Verdict]:
        """All verdicts, in the order of the source."""
        return [one for _, verdicts in self.chunks() for one in verdicts]

    def alike(self) -> list[tuple[bytes, bytes]]:
        """Pairs of pictures that look like each other, by their digests."""
        digests = [*self.fingerprints]
        pairs = near([*self.fingerprints.values()])
        return [(digests[i], digests[j]) for i, j, _ in pairs]


def open_source(config: Config, workspace: Path) -> tuple[Source, Recognised]:
    """The source that `data` names, and what format it has; InputError where neither is clear."""
    source = Source.open(config.source, workspace, config.pictures)
    heads = {}
    for file in source.files():
        heads[file.name] = [one.values for one in file.head(HEAD) if one.values is not None]
    return source, detect(heads, config.format, source.described)


def survey(source: Source, recognised: Recognised, limit: int = 0, keep: bool = True) -> Survey:
    """Check every row of the source that earlier runs have not checked.

    `limit` is how many records are looked at, 0 for all. `keep` says whether pictures that had to
    be changed are kept for a second pass.
    """
    words = source.described(VOCABULARY)
    vocabulary = None if words is None else vocabulary_of(words, source.place.where(VOCABULARY))
    files = [file for file in source.files() if file.name in recognised.kinds]
    total = sum(map(_rows, files))
    total = min(total, limit or total)
    processes = environment.cpus() if total > FEW_ROWS else 1
    chunks = (chunk for file in files for chunk in file.chunks())
    pieces = _pieces([*(_first(chunks, limit) if limit else chunks)], processes)
    state = source.state
    checking = Checking(
        source=source,
        recognised=recognised,
        vocabulary=vocabulary,
        state=state,
        version=code_version(),
        room=gallery.room(state / PICTURES) // processes if keep else 0,
    )
    found = Survey(checking=checking, pieces=pieces, blocks=[[] for _ in pieces])
    with (
        Verdicts(state / STORE, writable=True) as store,
        closing(parts(checking, pieces, processes)) as work,
    ):
        for number, part in track(work, "checking rows", total, count=_rows_of):
            store.add(part.new_rows, part.new_pictures)
            _add(found, number, part)
        store.used([one.key for one in found.rows() if one.key], [*found.came])
    gallery.tidy(state / PICTURES, found.came)
    return found


def _rows(file: File) -> int:
    """How many rows a file has; where it does not say so, a guess from the length of its first."""
    if (known := file.rows()) is not None:
        return known
    head = [one.values for one in file.head(HEAD)]
    size = sum(len(json.dumps(values, default=str)) for values in head)
    return len(head) if len(head) < HEAD else file.size * len(head) // size


def _first(chunks: Iterable[Chunk], limit: int) -> Iterator[Chunk]:
    """The chunks that hold the first records, the last of them cut short."""
    for chunk in chunks:
        yield replace(chunk, most=limit)
        limit -= sum(1 for _ in islice(chunk.records(), limit))
        if not limit:
            return


def _pieces(chunks: Sequence[Chunk], processes: int) -> list[Piece]:
    """A piece for each chunk; of few chunks, one for each chunk and process."""
    stripes = processes if len(chunks) < 4 * processes else 1
    return [Piece(chunk, stripe, stripes, BLOCK) for chunk in chunks for stripe in range(stripes)]


def _rows_of(numbered: tuple[int, Part]) -> int:
    return len(numbered[1].verdicts)


def _add(found: Survey, number: int, part: Part) -> None:
    found.blocks[number].append(part.verdicts)
    found.known += len(part.verdicts) - part.checked
    for one in part.seen:
        found.fingerprints[one.digest] = one.fingerprint
        found.came.add(one.came)
