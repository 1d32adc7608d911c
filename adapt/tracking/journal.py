"""What is recorded of a run, on disk: the journal, which one process holds and a sender drains.

    <state>/tracking/<id>/entries.jsonl     how the run begins, what is said of it, how it ends
                          points/           live points of curves, a file for each process and MiB
                          files/<name>/     copies of what the run has left, each folder whole
                          holder.lock       locked by the process that has the run open
                          reserve           room on the disk for the end of the run
                          sent.json         the sender's: MLflow's id of the run, how far it is

A journal is a record and never a condition. Writing it imports no MLflow and waits for nobody; a
full disk or a lost folder is one line on stderr, after which the work goes on without its record.
The kernel drops the lock with its holder, however that ends, so that the sender knows of runs
that nobody has any more.
"""

import errno
import fcntl
import json
import os
import shutil
import socket
import sys
import time
import uuid
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, TextIO

from adapt import environment
from adapt.files import locked
from adapt.names import one_line
from adapt.tracking import lines

ENTRIES, LOCK, POINTS, FILES = "entries.jsonl", "holder.lock", "points", "files"
SENT, RESERVE = "sent.json", "reserve"
SMALL = 1 << 20  # bytes; a larger file is linked where the file system can, and not copied
ROOM = 256 << 10  # bytes that are kept for the end of a run, should the disk be full by then
FULL = (errno.ENOSPC, errno.EDQUOT)
NEW, DONE = ".new-", ".done-"  # what a folder is called before it is whole, and when it is sent


def home(root: Path) -> Path:
    """Where the journals of a workspace lie."""
    return environment.state_dir(root) / "tracking"


class Journal:
    """The journal in `folder`; `held` by this process when it has the run open."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.held: TextIO | None = None

    @property
    def id(self) -> str:
        """32 hexadecimal digits, which MLflow has as the tag `adapt.journal`."""
        return self.folder.name

    def write(self, kind: str, **values: Any) -> None:
        """Add an entry of a `kind` that the sender knows (`adapt.tracking.outbox`)."""
        entry = {"kind": kind, "time": now(), **values}
        self._attempt(lambda: lines.append(self.folder / ENTRIES, entry))

    def keep(self, name: str, sources: Mapping[str, Path]) -> None:
        """Copy files into `files/<name>/`, which is there as a whole or not at all."""
        self._attempt(lambda: _keep(self.folder / FILES / name, sources))

    def end(self, status: str, tags: Mapping[str, str] | None = None) -> None:
        """Say how the run has ended, and let it go."""
        entry = {"kind": "end", "time": now(), "status": status, "tags": dict(tags or {})}
        # A rename needs no room on a full disk, an entry does.
        self._attempt(lambda: (self.folder / LOCK).rename(self.folder / f"{LOCK}.{status}"))
        self._attempt(lambda: lines.append(self.folder / ENTRIES, entry, sync=True))
        self.release()

    def release(self) -> None:
        """Give the lock back."""
        if self.held is not None:
            self.held.close()
            self.held = None
        _HELD.pop(self.id, None)

    def _attempt(self, action: Callable[[], object]) -> None:
        """Do it; what the file system refuses is told once, and stops nobody."""
        try:
            action()
        except OSError as error:
            if error.errno in FULL and self._make_room():
                self._attempt(action)
            else:
                tell(self.folder.parent, error)

    def _make_room(self) -> bool:
        """Give up the room that was kept for a full disk; whether there was some."""
        try:
            (self.folder / RESERVE).unlink()
        except OSError:
            return False
        return True


_HELD: dict[str, Journal] = {}  # the runs that this process has open
_TOLD: set[tuple[Path, str]] = set()  # what this process has told


def _let_go() -> None:
    """In a fork: its parent has the runs, and their locks must not outlive it in a child."""
    for journal in _HELD.values():
        if journal.held is not None:
            journal.held.close()
    _HELD.clear()


os.register_at_fork(after_in_child=_let_go)


def create(root: Path, **run: Any) -> Journal:
    """A new journal, held by this process; `run` is its first entry, see `adapt.tracking.outbox`.

    It appears under its name when it is locked and has that entry: nobody sees half a journal.
    """
    identity = uuid.uuid4().hex
    journal = Journal(home(root) / identity)
    journal._attempt(lambda: _begin(journal, run))
    _HELD[identity] = journal
    return journal


def _begin(journal: Journal, run: Mapping[str, Any]) -> None:
    partial = journal.folder.with_name(f"{NEW}{journal.id}")
    partial.mkdir(mode=0o700, parents=True)
    with locked(partial / LOCK, wait=False) as file:
        journal.held = os.fdopen(os.dup(file.fileno()), "a")
    about = {"pid": os.getpid(), "host": socket.gethostname(), **run}
    lines.append(partial / ENTRIES, {"kind": "run", "time": now(), **about})
    with (partial / RESERVE).open("wb") as reserve:
        os.posix_fallocate(reserve.fileno(), 0, ROOM)
    partial.rename(journal.folder)


def find(root: Path, identity: str) -> Journal | None:
    """The journal that this process holds, or one that another has, to add an entry; else None."""
    if identity in _HELD:
        return _HELD[identity]
    folder = home(root) / identity
    is_name = identity.isalnum()
    return Journal(folder) if is_name and (folder / ENTRIES).exists() else None


def everything(root: Path) -> list[Path]:
    """The folders of all journals that are not sent yet, the oldest first."""
    try:
        found = [path for path in home(root).iterdir() if (path / ENTRIES).exists()]
    except OSError:
        return []
    return sorted((path for path in found if path.name.isalnum()), key=_age)


def _age(path: Path) -> tuple[float, str]:
    try:
        return (path / ENTRIES).stat().st_mtime, path.name
    except FileNotFoundError:
        return 0.0, path.name


def is_held(folder: Path) -> bool:
    """Whether a living process has the run open."""
    return folder.name in _HELD or any(is_locked(path) for path in folder.glob(f"{LOCK}*"))


def is_locked(path: Path) -> bool:
    """Whether somebody has the lock; never makes the file, whose folder may just be going."""
    try:
        with path.open() as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            return False
    except BlockingIOError:
        return True
    except OSError:
        return False


def status_left(folder: Path) -> str:
    """How the run has ended, where its last entry found no room on the disk; else ""."""
    names = [path.name for path in folder.glob(f"{LOCK}.*")]
    return names[0].removeprefix(f"{LOCK}.") if names else ""


def entries(folder: Path) -> Iterable[dict[str, Any]]:
    """All whole entries that there are."""
    offset = 0
    while found := lines.read(folder / ENTRIES, offset):
        offset = found[-1].end
        yield from (line.record for line in found if line.record is not None)


def sent(folder: Path) -> dict[str, Any]:
    """What the sender noted: MLflow's id of the run, and how far it is; empty at the beginning."""
    try:
        noted: dict[str, Any] = json.loads((folder / SENT).read_text(encoding="utf-8"))
        return noted
    except (OSError, ValueError):
        return {}  # all can be found out again, by asking MLflow


def last_written(folder: Path) -> int:
    """When somebody last wrote to a journal, in ms since 1970."""
    paths: Iterable[Path] = [folder / ENTRIES, *(folder / POINTS).glob("*")]
    return int(max(path.stat().st_mtime for path in paths) * 1000)


def now() -> int:
    """Milliseconds since 1970."""
    return int(time.time() * 1000)


def tell(home: Path, error: OSError) -> None:
    """One line for records that cannot be written, however many they are."""
    reason = error.strerror or type(error).__name__
    if (home, reason) not in _TOLD:
        _TOLD.add((home, reason))
        kept = "the work goes on, and MLflow may lack a part of its runs"
        line = one_line(f"adapt: {home} cannot be written ({reason}); {kept}")
        print(line, file=sys.stderr, flush=True)


def _keep(target: Path, sources: Mapping[str, Path]) -> None:
    partial = target.with_name(f".{target.name}")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    for place, source in sources.items():
        (partial / place).parent.mkdir(parents=True, exist_ok=True)
        _copy(source, partial / place)
    partial.rename(target)


def _copy(source: Path, target: Path) -> None:
    """A copy of a small file, a hard link to a large one, or where the disk is full."""
    is_small = source.stat().st_size <= SMALL
    problems: list[OSError] = []
    for way in (_plain, os.link) if is_small else (os.link, _plain):
        try:
            way(source, target)
            return
        except OSError as error:
            problems.append(error)
            target.unlink(missing_ok=True)
    raise next((one for one in problems if one.errno in FULL), problems[0])


def _plain(source: Path, target: Path) -> None:
    shutil.copyfile(source, target)
