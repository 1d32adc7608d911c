"""Child processes that never outlive us: lines as they are written, an end of all descendants.

A Prefect task that blocks in `Popen.wait` or in reading a pipe cannot be timed out or cancelled:
Prefect interrupts by a signal (main thread) or an asynchronous exception (worker thread), and both
need Python code to run (https://github.com/PrefectHQ/prefect/issues/15760). So `stream` wakes up
four times a second, and whatever stops it ends the whole process group first, and what its members
started in other groups (Ray's daemons) after it.
"""

import codecs
import contextlib
import os
import re
import select
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from subprocess import DEVNULL, PIPE, STDOUT, Popen

import psutil

from adapt import environment
from adapt.environment import is_alive as alive

Env = Mapping[str, str]
Emit = Callable[[str], None]
POLL = 0.25  # seconds

_LINE = re.compile(r"([^\r\n]*)(\r?\n|\r(?=.))", re.DOTALL)
_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


class Lines:
    """Bytes cut into lines as they arrive; of what a progress bar redraws, one in `every` seconds.

    >>> lines = Lines(every=60)
    >>> list(lines.feed(b"start\\n 1%\\r 2%\\r 3%\\rdone"))
    ['start', ' 1%']
    >>> list(lines.feed(b"\\n")), list(lines.rest())
    (['done'], [])
    """

    def __init__(self, every: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._decode = codecs.getincrementaldecoder("utf-8")(errors="replace").decode
        self._every, self._clock = every, clock
        self._pending = ""
        self._redrawing = False  # the pending text follows a carriage return
        self._shown_at = float("-inf")
        self._shown = ""

    def feed(self, chunk: bytes) -> Iterator[str]:
        """The lines that `chunk` completes."""
        self._pending += self._decode(chunk)
        while match := _LINE.match(self._pending):
            self._pending = self._pending[match.end() :]
            text, self._redrawing = match[1], match[2] == "\r"
            yield from self._progress(text) if self._redrawing else self._whole(text)

    def idle(self) -> Iterator[str]:
        """A bar draws its line *before* it waits: show it when nothing more comes for a while."""
        if self._redrawing:
            yield from self._progress(self._pending.rstrip("\r"))

    def rest(self) -> Iterator[str]:
        """What the process left without an end of line."""
        text, self._pending = self._pending.rstrip("\r"), ""
        yield from self._whole(text)

    def _whole(self, text: str) -> Iterator[str]:
        text = _ESCAPES.sub("", text).rstrip()
        if text and text != self._shown:
            yield text
        self._shown = ""

    def _progress(self, text: str) -> Iterator[str]:
        text = _ESCAPES.sub("", text).rstrip()
        if text and text != self._shown and self._clock() - self._shown_at >= self._every:
            self._shown, self._shown_at = text, self._clock()
            yield text


def child_environment(extra: Env) -> dict[str, str]:
    """Ours and `extra`, with `python` meaning this interpreter, and output as it is written."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
    return {**os.environ, "PATH": path, "PYTHONUNBUFFERED": "1", **extra}


def end(pid: int, grace: float = environment.PROCESS_END_S) -> None:
    """End the group `pid` and all its descendants: SIGTERM, then SIGKILL after `grace` seconds."""
    members = family(pid)
    # 1. Ask the group. Descendants in other groups are for their parents to end, in their order.
    terminate([process for process in members if group(process) == pid])
    wait(members, grace)
    # 2. Kill what is left, and what was started meanwhile.
    left = [process for process in {*members, *family(pid)} if alive(process)]
    for process in left:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    wait(left, grace)


def terminate(processes: Sequence[psutil.Process]) -> None:
    """Send SIGTERM to those that still run."""
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.terminate()


def wait(processes: Sequence[psutil.Process], seconds: float) -> None:
    """Return when all have ended, or after `seconds`."""
    deadline = time.monotonic() + seconds
    while any(map(alive, processes)) and time.monotonic() < deadline:
        time.sleep(0.05)


def family(pid: int) -> list[psutil.Process]:
    """The living members of the process group `pid`, and everything that descends from them."""
    members: set[psutil.Process] = set()
    for process in psutil.process_iter():
        if group(process) == pid or process.pid == pid:
            with contextlib.suppress(psutil.NoSuchProcess):
                members |= {process, *process.children(recursive=True)}
    return [process for process in members if alive(process)]


def group(process: psutil.Process) -> int | None:
    """The id of its process group; None when it has ended."""
    try:
        return os.getpgid(process.pid)
    except ProcessLookupError:
        return None


def stream(
    command: Sequence[str], *, cwd: Path, env: Env, emit: Emit, ending: Callable[[int], None] = end
) -> tuple[int, list[str]]:
    """Run `command` in a process group of its own; returns its exit code and its last lines.

    Interrupted by anything (timeout, cancellation, Ctrl-C), it calls `ending` with the group's id
    before the exception goes on.
    """
    process = Popen(
        command, cwd=cwd, env=env, start_new_session=True, stdin=DEVNULL, stdout=PIPE, stderr=STDOUT
    )
    assert process.stdout is not None
    pipe = process.stdout.fileno()
    os.set_blocking(pipe, False)
    last: deque[str] = deque(maxlen=40)
    lines = Lines(every=2)
    try:
        for line in _output(process, pipe, lines):
            last.append(line)
            emit(line)
        return process.returncode, list(last)
    finally:
        ending(process.pid)
        try:
            # What it has said of its end, as that its job on a cluster is stopped.
            for line in _all_there_is(pipe, lines):
                emit(line)
        finally:
            process.stdout.close()
            process.wait()


def _output(process: Popen[bytes], pipe: int, lines: Lines) -> Iterator[str]:
    """What `process` writes, until it has ended; never blocks for longer than `POLL`."""
    ended, closed = False, False
    while not ended:
        # 1. Look whether it has ended before reading, so that nothing written last is missed.
        ended = process.poll() is not None
        # 2. Wait for output, or a while when it has closed its output but lives on.
        if closed and not ended:
            time.sleep(POLL)
        elif not ended and not select.select([pipe], [], [], POLL)[0]:
            yield from lines.idle()
        # 3. Take all there is.
        while chunk := _read(pipe):
            yield from lines.feed(chunk)
        closed = chunk is not None
    yield from lines.rest()


def _all_there_is(pipe: int, lines: Lines) -> Iterator[str]:
    """What can be read without waiting, and a last line that has no end."""
    while chunk := _read(pipe):
        yield from lines.feed(chunk)
    yield from lines.rest()


def _read(pipe: int) -> bytes | None:
    """What there is to read: nothing yet is None, a closed pipe is empty."""
    try:
        return os.read(pipe, 65536)
    except BlockingIOError:
        return None
