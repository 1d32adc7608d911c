"""Many texts, read one after the other or, from some thousands on, by several processes.

A process needs seconds and some hundred megabytes to load NLTK's data: below `_SHARE` texts for
each of two processes, one is faster. The processes import the main module again: a script that
scores that many texts needs the usual `if __name__ == "__main__"`.
"""

import multiprocessing
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from typing import TypeVar

from adapt import environment
from adapt.params import InputError
from adapt.score.text.english import Unreadable

_SHARE, _MOST = 2000, 8  # texts that are worth a process; processes
_CHUNK = 250  # texts that are sent at a time

T = TypeVar("T")


def read_each(read: Callable[[str], T], named: Sequence[tuple[str, str]]) -> list[T]:
    """`read` of each text, in order, from pairs of whose it is (for messages) and text.

    `read` is a function of a module, or a `partial` of one: it is sent to other processes.
    """
    one = partial(_read, read)
    processes = min(len(named) // _SHARE, environment.cpus(), _MOST)
    if processes < 2:
        return list(map(one, named))
    import nltk

    # A forked copy of a process with threads may hang.
    spawn, path = multiprocessing.get_context("spawn"), list(nltk.data.path)
    with ProcessPoolExecutor(processes, spawn, initializer=_look_in, initargs=(path,)) as pool:
        return list(pool.map(one, named, chunksize=_CHUNK))


def _read(read: Callable[[str], T], named: tuple[str, str]) -> T:
    name, text = named
    try:
        return read(text)
    except Unreadable as error:
        raise InputError(f"{name}: {error}") from None


def _look_in(path: list[str]) -> None:
    """NLTK's folders, which the parent may have been given while it ran."""
    import nltk

    nltk.data.path[:] = path
