"""Many texts, read one after the other or, from some thousands on, by several processes.

A process needs seconds and some hundred megabytes to load NLTK's data: below `_SHARE` texts for
each of two processes, one is faster. The processes import the main module again: a script that
scores that many texts needs the usual `if __name__ == "__main__"`.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import TypeVar

from adapt import environment
from adapt.data import workers
from adapt.params import InputError
from adapt.score.text.english import Unreadable

_SHARE, _MOST = 2000, 8  # texts that are worth a process; processes
_CHUNK = 250  # texts that are sent at a time

T = TypeVar("T")
Named = Sequence[tuple[str, str]]


def read_each(read: Callable[[str], T], named: Named) -> list[T]:
    """`read` of each text, in order, from pairs of whose it is (for messages) and text.

    `read` is a function of a module, or a `partial` of one: it is sent to other processes.
    """
    processes = min(len(named) // _SHARE, environment.cpus(), _MOST)
    if processes < 2:
        return [_read(read, *one) for one in named]
    import nltk

    pieces = [named[start : start + _CHUNK] for start in range(0, len(named), _CHUNK)]
    work = partial(_read_all, read, list(nltk.data.path))
    found = dict(workers.parts(work, pieces, processes))
    return [one for number in range(len(pieces)) for one in found[number]]


def _read(read: Callable[[str], T], name: str, text: str) -> T:
    try:
        return read(text)
    except Unreadable as error:
        raise InputError(f"{name}: {error}") from None


def _read_all(read: Callable[[str], T], folders: list[str], named: Named) -> Iterator[list[T]]:
    """In a process of its own; `folders`: NLTK's, which the parent may have been given late."""
    import nltk

    nltk.data.path[:] = folders
    yield [_read(read, *one) for one in named]
