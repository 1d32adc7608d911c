"""Whether pictures of a source are in a benchmark, which must not be learnt from.

Every picture below the benchmark's folder counts, and every picture in its parquet and Arrow files;
which of them the benchmark asks about makes no difference.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from adapt import environment
from adapt.data.check.examined import Examined
from adapt.data.likeness import near
from adapt.data.pictures import MAX_BYTES, PictureProblem, normalised
from adapt.data.readers.kinds import ending
from adapt.data.readers.local import Local
from adapt.data.readers.places import Stored as Document
from adapt.data.readers.places import files_of, place_of
from adapt.data.readers.record import Unreadable
from adapt.data.sources import PICTURES, Chunk, File
from adapt.data.workers import parts
from adapt.params import InputError, plain
from adapt.progress import track

HOLD_PICTURES = (".parquet", ".arrow")
DEEP = 64  # levels of folders
AT_ONCE = 64  # pictures that a worker sends together
FEW = 256  # pictures are read sooner than workers have started
EXAMPLES = 5
Batch = tuple[str, ...]  # names of pictures


@dataclass
class Prints:
    """Pictures of a benchmark: where each is, its fingerprint, and how many could not be read."""

    places: list[str] = field(default_factory=list)
    fingerprints: list[bytes] = field(default_factory=list)
    unreadable: int = 0

    def add(self, place: str, content: bytes | None) -> None:
        """Take a picture, or note that it cannot be read."""
        try:
            found = None if content is None else normalised(content).fingerprint
        except PictureProblem:
            found = None
        if found is None:
            self.unreadable += 1
        else:
            self.places.append(place)
            self.fingerprints.append(found)

    def __len__(self) -> int:
        return len(self.places) + self.unreadable


@dataclass(frozen=True)
class Reading:
    """What a worker does with names of pictures, or with a part of a file of rows."""

    place: Local

    def __call__(self, piece: Batch | Chunk) -> Iterator[Prints]:
        """The pictures, some at a time."""
        found = self._in_rows(piece) if isinstance(piece, Chunk) else self._named(piece)
        prints = Prints()
        for place, content in found:
            prints.add(place, content)
            if len(prints) == AT_ONCE:
                yield prints
                prints = Prints()
        yield prints

    def _named(self, names: Sequence[str]) -> Iterator[tuple[str, bytes | None]]:
        for name in names:
            try:
                yield name, self.place.content(name, MAX_BYTES)
            except Unreadable:
                yield name, None

    def _in_rows(self, chunk: Chunk) -> Iterator[tuple[str, bytes]]:
        for record in chunk.records():
            for content in _pictures_in(record.values):
                yield f"{record.file}: row {record.row}", content


def _pictures_in(value: Any) -> Iterator[bytes]:
    """Every value of bytes, at any depth; readers bound the depth."""
    if isinstance(value, bytes):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _pictures_in(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _pictures_in(item)


def prints_of(name: str, path: str, workspace: Path) -> Prints:
    """The pictures of benchmark `name`; InputError where its folder has none."""
    place, _ = place_of(path, workspace)
    if not isinstance(place, Local):
        raise InputError(f"--benchmark {name}: {plain(path)} is no folder of this machine")
    names = [] if place.only else [n for n in place.names(DEEP) if ending(n) in PICTURES]
    names = [n for n in names if place.holds(n)]  # a link that leads out is not followed
    entries = [entry for entry in files_of(place) if ending(entry.name) in HOLD_PICTURES]
    files = [File(document=Document(place=place, name=e.name, size=e.size)) for e in entries]
    pieces: list[Batch | Chunk] = [chunk for file in files for chunk in file.chunks()]
    pieces += [tuple(names[at : at + AT_ONCE]) for at in range(0, len(names), AT_ONCE)]
    processes = environment.cpus() if len(names) > FEW or files else 1
    found = Prints()
    with closing(parts(Reading(place), pieces, processes)) as work:
        numbered = track(work, f"pictures of {plain(name)}", count=lambda one: len(one[1]))
        for _, part in numbered:
            found.places += part.places
            found.fingerprints += part.fingerprints
            found.unreadable += part.unreadable
    problem = f"--benchmark {name}: no picture below {plain(path)}; name the folder that holds them"
    if not found.places:
        raise InputError(problem)
    return found


def leaks(examined: Examined, name: str, path: str, prints: Prints) -> dict[str, Any]:
    """Which pictures of accepted rows look like one of the benchmark, and what they are of it."""
    first, ours = examined.first_rows(), examined.found.fingerprints
    used = {digest: ours[digest] for digest in first}
    digests, kinds, examples = [*used], Counter[str](), list[str]()
    matches = near([*used.values()], prints.fingerprints)
    for i, j, kind in matches:
        kinds[kind] += 1
        if len(examples) < EXAMPLES:
            examples.append(f"{examined.place(first[digests[i]])} is {prints.places[j]}, {kind}")
    leaked = {digests[i] for i, _, _ in matches}
    return {
        "name": name,
        "path": path,
        "pictures": len(prints.places),
        "unreadable": prints.unreadable,
        "leaked": len(leaked),
        "rows": sum(not leaked.isdisjoint(row.pictures) for _, row in examined.accepted()),
        "kinds": dict(kinds),
        "examples": examples,
    }
