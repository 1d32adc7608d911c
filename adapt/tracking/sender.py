"""The process that sends journals to MLflow: one for a workspace and an address, started by need.

`start` is called by whoever opens a run, and costs a look at a lock when somebody sends already.
The sender (`adapt.tracking.drain`) belongs to nobody: it is in no process group and no family of
the one that started it, so that a stage which is killed does not take it along. It ends by itself
a few seconds after no run is open and all is sent; or, when MLflow does not answer, as soon as no
run is open. What is left then is sent by the next one, or by `python -m adapt.tracking flush`.
"""

import hashlib
import json
import subprocess
import sys
import time
from pathlib import Path

from adapt import environment
from adapt.tracking import journal
from adapt.tracking.store import label

STARTING_S = 10.0  # a sender that was started has its lock by then
LOG_SIZE = 1 << 20  # bytes; a longer log is begun anew
# The shell is gone at once, and the sender then has no parent that could take it along.
SHELL = '"$0" "$@" &'
_started: dict[Path, float] = {}  # when this process has started one


def start(root: Path) -> None:
    """Start a sender unless there is one; what keeps it from starting is told and stops nobody."""
    held = lock(root)
    if journal.is_locked(held):
        _started.pop(held, None)  # should it be killed, the next call starts another at once
        return
    is_starting = time.monotonic() - _started.get(held, -STARTING_S) < STARTING_S
    if is_starting or not journal.home(root).exists():
        return
    _started[held] = time.monotonic()
    command = [sys.executable, "-m", "adapt.tracking", "send"]
    log = journal.home(root) / "sender.log"
    try:
        mode = "w" if log.exists() and log.stat().st_size > LOG_SIZE else "a"
        with log.open(mode) as out:
            shell = ["/bin/sh", "-c", SHELL, *command]
            subprocess.run(
                shell,
                cwd=root,
                env=environment.independent(),
                start_new_session=True,
                check=False,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
            )
    except OSError as error:
        journal.tell(log.parent, error)


def wake(root: Path) -> None:
    """Let a sender that waits for MLflow try again now."""
    try:
        (journal.home(root) / "wake").touch()
    except OSError:
        return


def last_trouble(root: Path) -> str:
    """Why the sender could not send the last time; "" when it could."""
    try:
        noted = json.loads(note(root).read_text(encoding="utf-8"))
        return str(noted["trouble"])
    except (OSError, ValueError, KeyError):
        return ""


def ours(root: Path) -> list[Path]:
    """The journals for the address that this process has, the oldest first."""
    return [one for one in journal.everything(root) if _is_for(one, label())]


def _is_for(folder: Path, address: str) -> bool:
    first = next(iter(journal.entries(folder)), {})
    return first.get("store", address) == address


def called(root: Path) -> float:
    """When somebody last wanted the sender to try again."""
    try:
        return (journal.home(root) / "wake").stat().st_mtime
    except OSError:
        return 0.0


def lock(root: Path) -> Path:
    """What a sender has locked."""
    return journal.home(root) / f"sender{_suffix()}.lock"


def note(root: Path) -> Path:
    """Where a sender leaves its process id and its trouble."""
    return journal.home(root) / f"sender{_suffix()}.json"


def _suffix() -> str:
    """One for each address, so that a process with another one does not wait for this sender."""
    address = label()
    return f"-{hashlib.sha256(address.encode()).hexdigest()[:8]}" if address else ""
