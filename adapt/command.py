"""The edge of every command: what went wrong is one line that says what to do, and an exit code.

Whatever a person gives wrongly is an `InputError` already. What the machine refuses (a full disk, a
folder that may not be written, a locked database, a limit of the system) comes out of dozens of
libraries as something else; `plainly` turns it into `Trouble`, wherever in the chain of causes it
is, so that a run's tag, a flow's state and a terminal say the same. An error that is none of these
is ours, and keeps its traceback.
"""

import errno
import json
import os
import re
import resource
import select
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from adapt import addresses, environment, names
from adapt.files import whole_file
from adapt.params import InputError

DONE, MISTAKE, STOPPED = 0, 2, 130
SHELLS_OFFSET = 128  # what a shell adds to the number of the signal that has ended its command
LONGEST = 1500  # characters of a message
AGAIN = "run the same command again: what is finished is kept"
FULL = f"the disk is full; make room and {AGAIN}"
READ_ONLY = "the disk may only be read; mount it for writing, or work in a copy elsewhere"
LOCKED = (
    "a database of this workspace (MLflow's or Prefect's) is locked by another process; "
    f"wait until that has ended (`fuser -v .state/*/*.db` names it), and {AGAIN}"
)
DAMAGED = "the disk or a file on it is damaged; move the workspace to another disk, or restore it"
RIGHTS = "this user may not; change the owner or the rights, or run as another user"

# What the system's error numbers mean to a person; the others are told in the system's words.
NUMBERS = {
    errno.ENOSPC: FULL,
    errno.EDQUOT: f"your share of the disk is used up; make room and {AGAIN}",
    errno.EFBIG: f"larger than a file may be here; raise the limit (`ulimit -f`) and {AGAIN}",
    errno.EROFS: READ_ONLY,
    errno.EACCES: RIGHTS,
    errno.EPERM: RIGHTS,
    errno.EIO: DAMAGED,
    errno.ESTALE: "the file server has lost it; mount its disk again",
    errno.ENOENT: "not found",
    errno.ENOMEM: f"the memory is full; end other programs and {AGAIN}",
}
LIMITS = (errno.EMFILE, errno.ENFILE)
OTHERS = (errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.ELOOP, errno.EBUSY, errno.EEXIST)
# The same in the words of libraries that have no number: of SQLite, safetensors, torch, Arrow, DVC.
WORDS = {
    "No space left on device|disk is full|os error 28|PytorchStreamWriter failed writing": FULL,
    "File too large|os error 27": NUMBERS[errno.EFBIG],
    "Disk quota exceeded|os error 122": NUMBERS[errno.EDQUOT],
    "Read-only file system|readonly database|os error 30": READ_ONLY,
    "database (table )?is locked|database schema is locked": LOCKED,
    "unable to open database file": f"a database of this workspace cannot be opened; {RIGHTS}",
    "disk I/O error|disk image is malformed|is not a database|Input/output error": DAMAGED,
    "Permission denied|os error 13": RIGHTS,
    "Too many open files|os error 24": "",
}


class Trouble(InputError):
    """What the machine refuses: nothing was given wrongly, but a person has to do something."""


TOLD = (InputError, environment.UsageError, BrokenPipeError, KeyboardInterrupt)


def ended(
    name: str,
    work: Callable[[], int | None],
    *,
    in_json: bool = False,
    stopped: str = "stopped",
    longest: int = LONGEST,
) -> int:
    """Do the `work` of the command `name`; returns the exit code: 0 or its own, 2, or 130.

    What is said goes to stderr, or as an object to stdout with `in_json`, at most `longest`
    characters of it; `stopped`: what is said after Ctrl-C.
    A reader of the output that leaves early, as `head` does, is no error.
    """
    try:
        with plainly():
            code = work() or DONE
            sys.stdout.flush()
            return code
    except TOLD as error:
        line = stopped if isinstance(error, KeyboardInterrupt) else message(error, longest)
        return _answer(error, name, line, DONE, in_json=in_json)


def of_code(code: int) -> str:
    """How a process ended that did not end with 0, in words.

    Minus a signal's number, as Python says it, and 128 plus that, as shells pass it on, are one
    ending: which of them arrives depends on whether the shell in between has stayed.

    >>> of_code(1), of_code(-9), of_code(137)
    ('exit code 1', 'was killed by SIGKILL', 'was killed by SIGKILL')
    """
    number = -code if code < 0 else code - SHELLS_OFFSET
    if number == signal.SIGINT or number not in set(signal.Signals):
        return f"exit code {code}"
    return f"was killed by {signal.Signals(number).name}"


@contextmanager
def edge(name: str) -> Iterator[None]:
    """The same around a block, which ends by `SystemExit`; output that nobody reads is no success.

    A stage that cannot print has not finished: with 0, DVC would note what was there before it.
    """
    try:
        with plainly():
            yield
            sys.stdout.flush()
    except TOLD as error:
        line = "stopped" if isinstance(error, KeyboardInterrupt) else message(error)
        raise SystemExit(_answer(error, name, line, STOPPED)) from None


def _answer(
    error: BaseException, name: str, line: str, unread: int, *, in_json: bool = False
) -> int:
    """Say what has ended a command; returns its exit code."""
    if isinstance(error, BrokenPipeError):
        if not _is_unread():  # another pipe: a worker or a server has gone
            raise error
        _close_output()
        return unread
    is_stopped = isinstance(error, KeyboardInterrupt)
    tell(name, line, in_json=in_json and not is_stopped)
    return STOPPED if is_stopped else MISTAKE


@contextmanager
def plainly() -> Iterator[None]:
    """Raise as `Trouble` what the machine refuses, whatever libraries have made of it.

    Before that, refuse addresses of the environment that a library would show half a password of.
    """
    for variable in addresses.VARIABLES:
        addresses.given(variable)
    try:
        yield
    except (InputError, BrokenPipeError):
        raise
    except Exception as error:  # looked at, and raised again where it is ours
        if (line := explained(error)) is None:
            raise
        raise Trouble(line) from error


def explained(error: BaseException) -> str | None:
    """What to do about an error that the machine made; None where the mistake is ours.

    >>> explained(OSError(errno.ENOSPC, "No space left on device", "/data/x"))
    '/data/x: the disk is full; make room and run the same command again: what is finished is kept'
    >>> explained(KeyError("x")) is None
    True
    """
    for one in _causes(error):
        if isinstance(one, InputError):
            return str(one)
        if isinstance(one, OSError) and (known := _of_number(one)):
            return known
        if not isinstance(one, AssertionError | LookupError) and (known := of_words(str(one))):
            return known
    is_memory = isinstance(error, MemoryError)
    return f"the memory is full; end other programs and {AGAIN}" if is_memory else None


def message(error: BaseException, longest: int = LONGEST) -> str:
    """An error's text as one printable line without credentials, its middle left out if long."""
    text = " ".join(addresses.shown(str(error)).split())
    if len(text) > longest:
        text = f"{text[: longest // 2 - 3]} ... {text[-longest // 2 + 3 :]}"
    return names.one_line(text, 4 * longest) or type(error).__name__


def tell(name: str, line: str, *, in_json: bool = False) -> None:
    """Say one line, if there is one; a terminal or pipe that is gone is no reason to fail anew."""
    if not line:
        return
    with suppress(OSError, ValueError):
        if in_json:
            print(json.dumps({"error": line}), flush=True)
        else:
            print(f"{name}: {line}", file=sys.stderr, flush=True)


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The error, and what it was made from; SQLAlchemy keeps that under a name of its own."""
    seen: list[BaseException] = []
    one: BaseException | None = error
    while one is not None and one not in seen and len(seen) < 20:
        seen.append(one)
        yield one
        original = getattr(one, "orig", None)
        hidden = None if one.__suppress_context__ or not _wraps(one) else one.__context__
        one = original if isinstance(original, BaseException) else one.__cause__ or hidden


def _wraps(error: BaseException) -> bool:
    """Whether a library made its own error of another, without saying so by `from`."""
    return type(error).__module__.partition(".")[0] in ("mlflow", "sqlalchemy", "ray", "dvc", "PIL")


def _of_number(error: OSError) -> str:
    where = error.filename if isinstance(error.filename, str | bytes | os.PathLike) else ""
    place = f"{names.one_line(os.fsdecode(where))}: " if where else ""
    is_known = error.errno in (*NUMBERS, *LIMITS, *OTHERS)
    return place + advice(error) if is_known else ""


def write(path: Path, text: str) -> None:
    """Write a file that a command was asked for, whole or not at all; `InputError` names it."""
    try:
        with whole_file(path) as partial:
            partial.write_text(text, encoding="utf-8")
    except OSError as error:
        raise InputError(f"{names.one_line(str(path))}: {advice(error)}") from None


def advice(error: OSError) -> str:
    """What to do about an error of the system, or its own words where nothing better is known."""
    if error.errno in LIMITS:
        return _too_many()
    if error.errno in NUMBERS:
        return NUMBERS[error.errno]
    return os.strerror(error.errno).lower() if error.errno else str(error)


def of_words(text: str) -> str:
    """What to do about a text that a library or a tool has left of such an error; else nothing."""
    for line in text[:20_000].splitlines()[:50]:
        for words, known in WORDS.items():
            if re.search(words, line):
                said = names.one_line(addresses.shown(line.strip()), 200)
                return f"{known or _too_many()} ({said})"
    return ""


def _too_many() -> str:
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return f"more than {limit} open files; raise the limit (`ulimit -n`) and {AGAIN}"


def _is_unread() -> bool:
    """Whether nobody reads any more what this process prints."""
    outputs = select.poll()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            outputs.register(stream.fileno(), 0)
    return any(event & (select.POLLERR | select.POLLHUP) for _, event in outputs.poll(0))


def _close_output() -> None:
    """Python flushes once more when it ends; by then nothing may go into the pipe."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
