"""What a retraining has started ends with it, however it dies: also by SIGKILL or a lack of memory.

A process that is killed cannot end its children; the kernel's own way (PR_SET_PDEATHSIG) follows
the thread that started them, reaches no grandchildren, and cannot be given to what others start,
such as Prefect's temporary server. So a small process of its own waits at the end of a pipe whose
other end only the retraining holds. When that closes, it ends everything that still carries the
mark which the retraining has put into its environment before it started anything:

1. SIGTERM to what the retraining had started itself, with its process groups. What those have
   started elsewhere (Ray's daemons) is theirs to end.
2. After `GRACE_S`, SIGKILL to all that is left, until nothing is.

The sender of journals carries no mark: it brings what a dead retraining has recorded to MLflow.
"""

import os
import signal
import subprocess
import sys
import uuid
from contextlib import suppress
from functools import cache
from pathlib import Path

import psutil

from adapt.environment import FAMILY
from flows.process import alive, group, terminate, wait

GRACE_S = 15.0  # a stage closes what it has open; Ray takes 5 s to end its daemons
ROUNDS = 5  # of killing: what is killed may have started something meanwhile


@cache
def watch() -> int:
    """From here on, what this process starts ends with it. Returns the id of who sees to that."""
    os.environ[FAMILY] = uuid.uuid4().hex
    # Python's pipes are not inherited by children: only this process holds the other end.
    mine = subprocess.Popen(
        [sys.executable, "-m", "flows.reaper", os.environ[FAMILY]],
        cwd=Path(__file__).resolve().parents[1],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    _kept.append(mine)
    return mine.pid


_kept: list[subprocess.Popen[bytes]] = []  # or its pipe would be closed when it is collected


def marked(mark: str) -> set[psutil.Process]:
    """Living processes of this user that carry the mark, but for this one."""
    found = set()
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            is_ours = process.uids().real == os.getuid() and process.pid != os.getpid()
            if is_ours and process.environ().get(FAMILY) == mark and alive(process):
                found.add(process)
    return found


def end(mark: str, grace: float = GRACE_S) -> None:
    """End all that carries the mark; see the steps at the top."""
    members = marked(mark)
    own = {process.pid for process in members}
    firsts = {group(process) for process in members if _parent(process) not in own}
    terminate([process for process in members if group(process) in firsts])
    wait([*members], grace)
    for _ in range(ROUNDS):
        left = marked(mark)
        for process in left:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        wait([*left], grace)
        if not left:
            return


def _parent(process: psutil.Process) -> int | None:
    with suppress(psutil.NoSuchProcess):
        return int(process.ppid())
    return None


def main(mark: str) -> None:
    """Wait until the retraining is gone, then end what it has left."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # meant for the retraining; this ends after it
    while os.read(sys.stdin.fileno(), 1):
        pass
    end(mark)


if __name__ == "__main__":
    main(sys.argv[1])
