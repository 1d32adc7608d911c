"""A folder of this machine: its files, and no others.

A link is followed only while it stays in the folder (see `Local.resolved`). Only regular files are
opened, because a pipe would wait for ever.
"""

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from adapt.data.readers.entries import DEPTH, Counts, Entry, is_hidden, require_size
from adapt.data.readers.record import BLOCK, Unreadable
from adapt.params import InputError, plain, shown


@dataclass(frozen=True, kw_only=True)
class Local:
    """A folder; `only` is the name of its one file that counts, if a file was named."""

    root: Path
    only: str = ""

    def where(self, name: str = "") -> str:
        """The path as a text that is safe to print."""
        return plain(str(self.root / name))

    def entries(self, counts: Counts) -> list[Entry]:
        """Regular files, hidden ones left out; a link that leads out of the folder is an error."""
        names = [self.only] if self.only else self.names(DEPTH)
        found = []
        for name in filter(counts, names):
            if not name.isascii() and name != name.encode("utf-8", "replace").decode():
                raise InputError(f"{self.where(name)}: its name is not UTF-8; rename it")
            info = self.resolved(name).stat()
            mark = f"{info.st_mtime_ns}-{info.st_ino}"
            found.append(Entry(name=name, size=info.st_size, mark=mark))
        return found

    def names(self, depth: int, below: str = "") -> list[str]:
        """The names of all files, in order, down to a number of levels below a folder."""
        return sorted(_walk(self.root / below, depth, f"{below}/" if below else ""))

    def resolved(self, name: str) -> Path:
        """The real path of a name, which lies in this folder; `InputError` if it leads out.

        A snapshot in the cache of `huggingface_hub` is made of links into the folder `blobs` beside
        it, which are as good as files. A single file that the user has named may be a link as well.
        """
        if name != self.only and not self.holds(name):
            raise InputError(f"{self.where(name)}: leads out of the folder {self.where()}")
        return self._real(name)

    def holds(self, name: str) -> bool:
        """Whether what a name leads to lies in this folder; there need be no such file."""
        path = os.path.join(self.root, name)
        if not os.path.lexists(path):  # most names that are tried, and no link to follow
            return Path(os.path.normpath(path)).is_relative_to(self.root)
        folders, snapshots = [self.root], self.root.parent
        if snapshots.name == "snapshots":
            folders.append(snapshots.parent / "blobs")
        return any(self._real(name).is_relative_to(folder) for folder in folders)

    def content(self, name: str, limit: int) -> bytes | None:
        """The bytes of a file that `holds` allows, or None; `Unreadable` above `limit`."""
        path = os.path.join(self.root, name)
        if not os.path.lexists(path):
            return None
        try:
            with regular(self._real(name), buffering=0) as file:
                size = os.fstat(file.fileno()).st_size
                require_size(size, limit, name)
                return file.read(size)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise Unreadable(f"{shown(name)} cannot be read ({error.strerror})") from None

    def _real(self, name: str) -> Path:
        return Path(os.path.realpath(self.root / name))

    def open(self, name: str) -> BinaryIO:
        """The content of a regular file."""
        try:
            return regular(self.resolved(name))
        except OSError as error:
            raise InputError(f"{self.where(name)}: {error.strerror}") from None


def regular(path: Path, buffering: int = BLOCK) -> BinaryIO:
    """A file opened for reading; OSError for a folder, a pipe, a device or a link."""
    handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise OSError(0, "is no regular file", str(path))
        return os.fdopen(handle, "rb", buffering=buffering)
    except BaseException:
        os.close(handle)
        raise


def _walk(folder: Path, depth: int, above: str) -> Iterator[str]:
    try:
        found = [entry for entry in os.scandir(folder) if not is_hidden(entry.name)]
    except OSError as error:
        raise InputError(f"{plain(str(folder))}: {error.strerror}") from None
    for entry in found:
        if _is_file(entry):
            yield above + entry.name
        elif depth > 1 and entry.is_dir(follow_symlinks=False):
            yield from _walk(folder / entry.name, depth - 1, f"{above}{entry.name}/")


def _is_file(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_file()
    except OSError:  # a link that leads to itself
        return False
