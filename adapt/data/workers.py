"""Work in processes of its own: what they find comes as they find it, and nothing outlives a run.

Every worker has a pipe to its parent and does one piece at a time. A worker that dies closes its
pipe, which the parent notices at once; when the parent leaves, for whatever reason, it ends its
workers, and where it is killed itself, they end with it. The pipes hold little: a worker waits
until its last part has been taken.
"""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any, Generic, TypeVar

from adapt import command
from adapt.params import InputError

Piece = TypeVar("Piece")
Part = TypeVar("Part")
Work = Callable[[Piece], Iterator[Part]]
"""What is done with a piece; the function and what it gives are picklable."""

_END_S = 10.0  # after which a process that was killed counts as one that cannot be


def parts(
    work: Work[Piece, Part], pieces: Iterable[Piece], processes: int
) -> Generator[tuple[int, Part], None, None]:
    """The parts that `work` makes of each piece, with the piece's number, as they come.

    Those of one piece come in their order. One process: here, one piece after the other. Raises
    InputError as the work does, and for a worker that died. To be closed by who does not go on to
    the end, which ends the workers.
    """
    if processes > 1:
        yield from _Pool(work, processes).parts(pieces)
        return
    for number, piece in enumerate(pieces):
        for part in work(piece):
            yield number, part


class _Pool(Generic[Piece, Part]):
    def __init__(self, work: Work[Piece, Part], processes: int) -> None:
        self._work, self._processes = work, processes
        self._workers: dict[Connection, BaseProcess] = {}
        self._pieces: dict[Connection, int] = {}  # what each is busy with

    def parts(self, pieces: Iterable[Piece]) -> Iterator[tuple[int, Part]]:
        """See `parts` above."""
        waiting = enumerate(pieces)
        try:
            for _ in range(self._processes):
                self._next(self._started(), waiting)
            while self._pieces:
                for connection in wait([*self._pieces]):
                    assert isinstance(connection, Connection)
                    yield from self._received(connection, waiting)
        finally:
            self._end()

    def _started(self) -> Connection:
        # Not forked: threads and files of this process must not come along.
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        process = context.Process(target=_serve, args=(theirs, self._work), daemon=True)
        with _undisturbed():
            process.start()
        theirs.close()
        self._workers[ours] = process
        return ours

    def _next(self, connection: Connection, waiting: Iterator[tuple[int, Piece]]) -> None:
        """Give a worker its next piece, or let it go."""
        number, piece = next(waiting, (-1, None))
        self._pieces.pop(connection, None)
        if number >= 0:
            self._pieces[connection] = number
            try:
                connection.send(piece)
            except OSError:
                self._died(connection)

    def _received(
        self, connection: Connection, waiting: Iterator[tuple[int, Piece]]
    ) -> Iterator[tuple[int, Part]]:
        try:
            kind, value = connection.recv()
        except (EOFError, OSError):
            self._died(connection)
        if kind == "refused":
            raise InputError(value)
        if kind == "part":
            yield self._pieces[connection], value
        else:
            self._next(connection, waiting)

    def _died(self, connection: Connection) -> None:
        process = self._workers[connection]
        process.join(_END_S)
        code = process.exitcode or 0
        reason = command.of_code(code) if code else "ended"
        hint = "; is the memory enough?" if code == -signal.SIGKILL else ""
        raise InputError(f"a worker process {reason}{hint}")

    def _end(self) -> None:
        for connection, process in self._workers.items():
            process.kill()
            connection.close()
        for process in self._workers.values():
            process.join(_END_S)


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Start a process whole: Ctrl-C is heard after the block.

    It reaches the whole group, also a worker that has not come to ignore it: that one inherits the
    mask. And it reaches any thread of ours, after which Python interrupts the main one, masked or
    not: a worker would be left with half of what it is to do, and would say so by a traceback.
    """
    # The helper that multiprocessing starts beside its first process takes the mask away again.
    resource_tracker.ensure_running()
    heard: list[int] = []
    is_main = threading.current_thread() is threading.main_thread()
    handler = signal.getsignal(signal.SIGINT)
    if is_main and callable(handler):
        signal.signal(signal.SIGINT, lambda number, frame: heard.append(number))
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        if is_main and callable(handler):
            signal.signal(signal.SIGINT, handler)
    if heard:
        raise KeyboardInterrupt


def _serve(connection: Connection, work: Work[Any, Any]) -> None:
    """A worker's life: pieces come, parts go, until the pipe is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group: the parent acts
    threading.Thread(target=_follow, daemon=True).start()
    try:
        while True:
            piece = connection.recv()
            try:
                for part in work(piece):
                    connection.send(("part", part))
                connection.send(("done", None))
            except InputError as error:
                connection.send(("refused", str(error)))
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return  # the parent is gone, or has gone on


def _follow() -> None:
    """End with the parent, whatever the worker is busy with."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
