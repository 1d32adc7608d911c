"""What a place lists, and the rules that hold for files of every place."""

from collections.abc import Callable
from dataclasses import dataclass

from adapt.data.readers.record import Unreadable
from adapt.params import shown

DEPTH = 2
"""Levels at which data files are looked for: those of the folder, and of each folder in it."""
Counts = Callable[[str], bool]  # of a name


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A file in a listing; `mark` changes when the content does, where the place can tell."""

    name: str
    size: int
    mark: str


def require_size(size: int, limit: int, name: str) -> None:
    """`Unreadable` for a file of more bytes than the limit."""
    if size > limit:
        raise Unreadable(f"{shown(name)} has more than {limit >> 20} MiB")


def is_hidden(name: str) -> bool:
    """Whether a file or a folder above it is hidden, or what archives of a Mac leave behind."""
    return any(part.startswith((".", "__MACOSX")) for part in name.split("/"))
