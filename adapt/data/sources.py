"""A source of data: the place that `data.source` names, its files, their rows, and its pictures.

    data/rlhf-v, rows.jsonl      a folder or a file of this machine
    hf:owner/name@revision       a data set of the Hugging Face hub, only when named so
    s3://bucket/prefix           a folder on object storage, or another address that fsspec reads

In a folder, the files that end in one of `READERS` count, in it and in each folder in it. Rows come
as a stream of `Record`s; a `Chunk` is a part of a file that another process can read by itself.

    source = Source.open("data/rlhf-v", Path("."))
    for file in source.files():
        for record in file.records():
            ...
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from adapt.data.disk import told
from adapt.data.readers import digests
from adapt.data.readers.entries import Entry
from adapt.data.readers.kinds import READERS, ending, reader
from adapt.data.readers.local import Local
from adapt.data.readers.picture_names import FOLDERS, Finder
from adapt.data.readers.places import (
    Stored,
    described,
    files_of,
    folder_of,
    is_description,
    place_of,
)
from adapt.data.readers.record import Cut, Record
from adapt.data.readers.remote import Remote
from adapt.environment import state_dir
from adapt.params import InputError, plain

PICTURES = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff")
_DEEP = 64  # levels of folders of pictures
_LOOKED_AT = 100  # rows


@dataclass(frozen=True, kw_only=True)
class Chunk:
    """A part of a file; a small value that pickles. `rows` is how many it has, where known.

    `most` rows of it count, 0 for all.
    """

    document: Stored
    cut: Cut
    most: int = 0

    @property
    def rows(self) -> int | None:
        """How many rows it has, if that is known before they are read."""
        return self.cut.rows

    def records(self) -> Iterator[Record]:
        """Its rows, numbered as in the whole file."""
        with self.document.reading():
            rows = reader(self.document.name).records(self.document, self.cut)
            yield from islice(rows, self.most or None)


@dataclass(frozen=True, kw_only=True)
class File:
    """A file of rows; `name` is relative to the source."""

    document: Stored

    @property
    def name(self) -> str:
        """Its name relative to the source, with slashes."""
        return self.document.name

    @property
    def size(self) -> int:
        """Its bytes."""
        return self.document.size

    def records(self) -> Iterator[Record]:
        """Every row, in order; `InputError` for a file that cannot be read at all."""
        with self.document.reading():
            yield from reader(self.name).records(self.document)

    def head(self, count: int) -> list[Record]:
        """The first rows."""
        return list(islice(self.records(), count))

    def rows(self) -> int | None:
        """How many rows it has, if that is known without reading them."""
        with self.document.reading():
            return reader(self.name).count(self.document)

    def chunks(self) -> Iterator[Chunk]:
        """Parts that together have every row once, in order."""
        with self.document.reading():
            for cut in reader(self.name).cuts(self.document):
                yield Chunk(document=self.document, cut=cut)


@dataclass(frozen=True, kw_only=True)
class Source:
    """An opened source; a small value that pickles, so that workers find pictures by themselves.

    `named` is how the user named it, fit for messages; `revision` is the hub's commit, else "".
    """

    named: str
    place: Local | Remote
    entries: tuple[Entry, ...]
    state: Path
    pictures: Local | None = None
    revision: str = ""

    @classmethod
    def open(cls, place: str, workspace: Path, pictures: str = "") -> "Source":
        """List what is at `place`; relative paths are relative to `workspace`.

        `pictures` is a folder, inside or outside the source, where pictures are looked for first.
        Raises InputError where there is nothing, or nothing that holds rows.
        """
        where, revision = place_of(place, workspace)
        found = cls(
            named=plain(place),
            place=where,
            entries=tuple(files_of(where)),
            state=state_dir(workspace) / "data",
            pictures=folder_of(workspace, pictures, "data.pictures") if pictures else None,
            revision=revision,
        )
        if not found.entries:
            raise InputError(f"{found.named}: no file in it ends in {', '.join(READERS)}")
        return found

    def files(self) -> list[File]:
        """Its files of rows, in the order of their names."""
        return [File(document=self._stored(entry)) for entry in self.entries]

    def described(self, name: str) -> Any:
        """A file of JSON that describes the rows, such as dataset_info.json; None where none is."""
        return described(self.place, name)

    def picture(self, name: str, relative_to: str) -> bytes:
        """The bytes of a picture that a row of file `relative_to` names, undecoded.

        `readers/picture_names.py` says where it is looked for. Raises Unreadable with the reason.
        """
        return Finder(place=self.place, extra=self.pictures).read(name, relative_to)

    def fingerprint(self) -> str:
        """What changes when the data does: the hub's commit, else a sha256.

        Of a folder or file, over names, sizes and contents of everything that may be read, pictures
        included; contents are remembered in the state folder, so that asking every night is cheap.
        Of object storage, over names and ETags.
        """
        if self.revision:
            return self.revision
        if isinstance(self.place, Remote):
            marks = self.place.entries(lambda name: True)
            return digests.of_marks({entry.name: f"{entry.size} {entry.mark}" for entry in marks})
        names = {entry.name for entry in self.entries} | set(self._named_pictures(self.place))
        if not self.place.only:
            names |= {entry.name for entry in self.place.entries(is_description)}
        files = {name: self.place.root / name for name in names}
        if self.pictures is not None:
            found = self.pictures
            files |= {f"data.pictures/{name}": found.root / name for name in _pictures(found)}
        with told(self.place.root):
            return digests.of_files(files, self.state / "digests.json")

    def _named_pictures(self, place: Local) -> list[str]:
        """Pictures of the source's folder; beside a single file, of the folders that its rows name.

        The folder of a single file may hold anything, so that its first rows are asked.
        """
        if not place.only:
            return _pictures(place)
        firsts = {text.split("/")[0] for text in self._texts() if ending(text) in PICTURES}
        below = [name for name in {*firsts, *FOLDERS} if (place.root / name).is_dir()]
        beside = [name for name in place.names(1) if name in firsts]
        return [name for one in below for name in _pictures(place, one)] + beside

    def _texts(self) -> Iterator[str]:
        """The texts in the first rows of each file, at any depth."""
        for file in self.files():
            waiting: list[Any] = [record.values for record in file.head(_LOOKED_AT)]
            while waiting:
                value = waiting.pop()
                if isinstance(value, str):
                    yield value
                elif isinstance(value, Mapping | list):
                    waiting += value.values() if isinstance(value, Mapping) else value

    def _stored(self, entry: Entry) -> Stored:
        return Stored(place=self.place, name=entry.name, size=entry.size)


def _pictures(place: Local, below: str = "") -> list[str]:
    """Names of pictures below a folder; links that lead out are never read, and not listed."""
    names = (name for name in place.names(_DEEP, below) if ending(name) in PICTURES)
    return [name for name in names if not (place.root / name).is_symlink() or place.holds(name)]
