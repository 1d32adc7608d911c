"""From the name of a place to the place, and the files in it that hold rows."""

import codecs
import posixpath
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from adapt.data.readers import hub, values
from adapt.data.readers.entries import Entry
from adapt.data.readers.kinds import READERS, ending
from adapt.data.readers.local import Local
from adapt.data.readers.record import MAX_ROW, OutOfReach, Unreadable
from adapt.data.readers.remote import Remote, reached
from adapt.params import InputError, plain

DESCRIPTIONS = (
    *("dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json"),
    *("vocabulary.json", "meta.json", "config.json"),
)
"""Files that say something about the rows and hold none."""
STATE = "state.json"
STORAGES = ("s3", "gs", "az", "abfs", "memory")
"""What may stand before ://; the last is fsspec's, and lives as long as its process."""


@dataclass(frozen=True, kw_only=True)
class Stored:
    """One file of a place: the `Document` that readers read."""

    place: Local | Remote
    name: str
    size: int

    @property
    def path(self) -> str | None:
        """Its path, where the machine has the file."""
        return str(self.place.resolved(self.name)) if isinstance(self.place, Local) else None

    def where(self) -> str:
        """How a message names it."""
        return self.place.where(self.name)

    def open(self) -> BinaryIO:
        """Its content."""
        return self.place.open(self.name)

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Turn a disk or network that fails while the file is read into one line."""
        if isinstance(self.place, Remote):
            with reached(self.where()):
                yield
            return
        try:
            yield
        except OSError as error:
            problem = plain(error.strerror or str(error))
            raise OutOfReach(f"{self.where()}: {problem}") from None


def place_of(place: str, workspace: Path) -> tuple[Local | Remote, str]:
    """The place that a user has named, and its revision where it has one; else InputError."""
    if place.startswith(hub.PREFIX):
        return hub.place(place, holds_rows)
    if address := re.match(r"(\w[\w+.-]*)://", place):
        return _storage(place, address[1]), ""
    path = _path(workspace, place)
    if path.is_file():
        return Local(root=path.absolute().parent.resolve(), only=path.name), ""
    return folder_of(workspace, place, ""), ""


def files_of(place: Local | Remote) -> list[Entry]:
    """Files of rows; where `datasets` has saved a set, those that its state.json names."""
    if place.only:
        return place.entries(lambda name: ending(name) in READERS)
    found = place.entries(lambda name: holds_rows(name) or posixpath.basename(name) == STATE)
    saved = {posixpath.dirname(entry.name) for entry in found if not holds_rows(entry.name)}
    names = {name for folder in saved for name in _saved(place, folder)}
    return [
        entry
        for entry in found
        if holds_rows(entry.name)
        and (posixpath.dirname(entry.name) not in saved or entry.name in names)
    ]


def described(place: Local | Remote, name: str) -> Any:
    """A file of JSON that describes rows; None where there is none."""
    if not place.holds(name) or (content := place.content(name, MAX_ROW)) is None:
        return None
    try:
        return values.parsed(content.removeprefix(codecs.BOM_UTF8))
    except Unreadable as error:
        raise InputError(f"{place.where(name)}: {error}") from None


def is_description(name: str) -> bool:
    """Whether a file says something about the rows and holds none."""
    return posixpath.basename(name) in DESCRIPTIONS


def holds_rows(name: str) -> bool:
    """Whether a file counts as one of rows, by its name."""
    return ending(name) in READERS and not is_description(name)


def _storage(place: str, scheme: str) -> Remote:
    named = f"{scheme}://..."
    if scheme not in STORAGES:
        known = ", ".join(f"{one}://" for one in STORAGES[:-1])
        raise InputError(f"{named}: is not read; a source is a folder, a file, hf: or {known}")
    if "@" in place or "?" in place:
        advice = "keys belong into the environment (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY)"
        raise InputError(f"{named}: the address holds more than a bucket and a prefix; {advice}")
    folder, _, name = place.rpartition("/")
    if ending(name) in READERS:
        return Remote(url=folder, only=name)
    return Remote(url=place.rstrip("/"))


def folder_of(workspace: Path, named: str, key: str) -> Local:
    """A folder that a user has named, under `key` if that is not data.source; else InputError."""
    path = _path(workspace, named)
    if not path.is_dir():
        problem = "is no regular file or folder" if path.exists() else "not found"
        raise InputError(": ".join(filter(None, [key, plain(named), problem])))
    return Local(root=path.resolve())


def _path(workspace: Path, named: str) -> Path:
    """A path that can be asked for; InputError for one that no file can have."""
    try:
        path = workspace / Path(named).expanduser()
        path.exists()
        return path
    except (OSError, RuntimeError) as error:  # too long, no access; ~ and the name of nobody
        problem = getattr(error, "strerror", None) or "there is no such user"
        raise InputError(f"{plain(named[:200])}: {problem}") from None


def _saved(place: Local | Remote, folder: str) -> list[str]:
    state = described(place, posixpath.join(folder, STATE))
    files = state.get("_data_files") if isinstance(state, dict) else None
    names = [file.get("filename") for file in files or () if isinstance(file, dict)]
    return [posixpath.join(folder, name) for name in names if isinstance(name, str)]
