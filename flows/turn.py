"""One retraining of a workspace at a time, and what the one that has its turn is doing.

The lock is the kernel's and ends with its holder, however that ends. The file under the lock says
who holds it, so that others can say what they wait for.
"""

import fcntl
import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TextIO

from adapt import environment
from adapt.files import locked
from adapt.names import one_line
from adapt.params import InputError

POLL_S, PATIENCE_S, SAID_EVERY_S = 0.25, 0.5, 600.0


class Busy(InputError):
    """Another retraining has the workspace."""


@dataclass(frozen=True)
class Holder:
    """The process of a retraining, when it began (UTC), and what it is doing."""

    pid: int
    since: str
    doing: str = "planning"

    def __str__(self) -> str:
        return f"process {self.pid}, since {self.since}, {self.doing}"


@dataclass
class Turn:
    """The lock while it is held."""

    file: TextIO
    holder: Holder

    def doing(self, what: str) -> None:
        """Say what is being done now; a full disk does not stop a retraining here."""
        self.holder = Holder(self.holder.pid, self.holder.since, what)
        with suppress(OSError):
            self.file.truncate(0)
            self.file.write(json.dumps(asdict(self.holder)))
            self.file.flush()


@contextmanager
def taken(root: Path, wait_seconds: float = 0.0) -> Iterator[Turn]:
    """Take the turn, or wait for it; `Busy` names who still has it after `wait_seconds`."""
    deadline, said_at = time.monotonic() + max(wait_seconds, PATIENCE_S), float("-inf")
    while True:
        with ExitStack() as stack:
            # Only the lock's own refusal is caught, not what the work under it may raise.
            try:
                file = stack.enter_context(locked(_path(root), wait=False))
            except BlockingIOError:
                who = holder(root) or "a process that does not say its name"
            else:
                turn = Turn(file, Holder(os.getpid(), f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC"))
                turn.doing("planning")
                yield turn
                return
        now = time.monotonic()
        if now >= deadline:
            advice = "wait until it ends, or let this one wait with --wait-minutes"
            raise Busy(f"{root}: another retraining is running here ({who}); {advice}")
        if wait_seconds and now - said_at >= SAID_EVERY_S:
            print(one_line(f"waiting for another retraining ({who})"), file=sys.stderr, flush=True)
            said_at = now
        time.sleep(min(POLL_S, deadline - now))


def running(root: Path) -> Holder | None:
    """The retraining that has the turn now, if there is one; asking needs no lock and no file."""
    try:
        with _path(root).open("rb") as file:
            # Shared, and given back at once: who takes the turn just now tries for `PATIENCE_S`.
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return holder(root) or Holder(0, "some time", "about which it does not say more")
    except OSError:  # no such file, or a state folder that cannot be read
        return None
    return None


def holder(root: Path) -> Holder | None:
    """Who has written into the file of the lock last."""
    try:
        return Holder(**json.loads(_path(root).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def _path(root: Path) -> Path:
    return environment.state_dir(root) / "retrain.lock"
