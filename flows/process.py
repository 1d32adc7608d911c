"""Child processes that never outlive us: lines as they are written, and an end that reaches
grandchildren.

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
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import psutil

POLL = 0.25
GRACE = 15.0
"""Seconds a process gets to end on its own: Ray needs some to take its daemons along."""

_LINE = re.compile(r"([^\r\n]*)(\r?\n|\r(?=.))", re.DOTALL)
_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


class Lines:
    """Bytes as they arrive, cut into lines; of the lines a progress bar redraws, one in `every`
    seconds.

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
        """A bar draws its line *before* it waits: show it when nothing more has come for a while."""
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


def environment(extra: Mapping[str, str]) -> dict[str, str]:
    """What a child process sees: ours, `python` meaning this interpreter, and output as it is
    written.
    """
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
    return {**os.environ, "PATH": path, "PYTHONUNBUFFERED": "1", **extra}


def stream(
    command: Sequence[str],
    *,
    cwd: Path,
    env: Mapping[str, str],
    emit: Callable[[str], None],
    progress_every: float = 2.0,
    grace: float = GRACE,
) -> tuple[int, list[str]]:
    """Run `command` in a process group of its own; returns its exit code and its last lines.

    Interrupted by anything (timeout, cancellation, Ctrl-C), it ends the group before the exception
    goes on.
    """
    process = subprocess.Popen(
        command,
        cwd=cwd,
        env=dict(env),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    assert process.stdout is not None
    pipe = process.stdout.fileno()
    os.set_blocking(pipe, False)
    lines = Lines(progress_every)
    last: deque[str] = deque(maxlen=40)

    def tell(some: Iterator[str]) -> None:
        for line in some:
            last.append(line)
            emit(line)

    try:
        ended, closed = False, False
        while not ended:
            ended = (
                process.poll() is not None
            )  # looked at before reading, so that nothing written last is missed
            if closed and not ended:
                time.sleep(POLL)  # it has closed its output but lives on
            elif not ended and not select.select([pipe], [], [], POLL)[0]:
                tell(lines.idle())
            while chunk := _read(pipe):
                tell(lines.feed(chunk))
            closed = chunk is not None
        tell(lines.rest())
        return process.returncode, list(last)
    finally:
        end(process.pid, grace)
        process.stdout.close()
        process.wait()


def _read(pipe: int) -> bytes | None:
    """What there is to read: nothing yet is None, a closed pipe is empty."""
    try:
        return os.read(pipe, 65536)
    except BlockingIOError:
        return None


def family(pid: int) -> list[psutil.Process]:
    """The living members of the process group `pid`, and everything that descends from them."""
    members: dict[int, psutil.Process] = {}
    for process in psutil.process_iter():
        try:
            if os.getpgid(process.pid) == pid or process.pid == pid:
                members[process.pid] = process
                members.update((child.pid, child) for child in process.children(recursive=True))
        except (psutil.NoSuchProcess, ProcessLookupError):
            continue
    return [process for process in members.values() if alive(process)]


def alive(process: psutil.Process) -> bool:
    """Whether it still runs. One that nobody has waited for yet (a zombie) does not."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def end(pid: int, grace: float = GRACE) -> None:
    """End the process group `pid` and all its descendants: SIGTERM, `grace` seconds, then SIGKILL."""
    members = family(pid)
    if not members:
        return
    # A group may be gone while descendants in groups of their own are not.
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGTERM)
    deadline = time.monotonic() + grace
    while any(map(alive, members)) and time.monotonic() < deadline:
        time.sleep(0.05)
    left = {process.pid: process for process in members + family(pid) if alive(process)}
    for process in left.values():
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    deadline = time.monotonic() + 5
    while any(map(alive, left.values())) and time.monotonic() < deadline:
        time.sleep(0.05)
