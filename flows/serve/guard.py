"""What stands between supervisord and each service, so that nothing of a service is left behind.

    python -m flows.serve.guard NAME COMMAND ...

supervisord signals one process or its group, which is not enough here:

* A Prefect worker that is told to stop gives its retrainings, in groups of their own, no time to
  close what they opened: they end first.
* A child of MLflow's server stays, with its port, when the server is killed. With the guard itself
  killed, nobody would be left to end it: `flows.reaper` sees to that, and whoever starts or stops
  the service by this name afterwards waits until it is done.
* All services stay when supervisord is killed.
"""

import ctypes
import os
import signal
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import psutil

from adapt import environment
from flows import reaper
from flows.process import end, stream, terminate, wait

GRACE_S = 2 * environment.PROCESS_END_S  # a retraining may itself be waiting for a stage to end


def end_children_first(pid: int) -> None:
    """End the process `pid` after its children, with all that they have started."""
    try:
        leader = psutil.Process(pid)
        children = leader.children()
        # 1. Halt the parent, so that it neither kills its children nor starts new ones.
        leader.suspend()
    except psutil.NoSuchProcess:
        return end(pid, GRACE_S)
    try:
        # 2. Let the children end.
        terminate(children)
        wait(children, GRACE_S)
    finally:
        # 3. Only then the parent. A halted process takes no signal but this: it wakes up to end.
        leader.terminate()
        leader.resume()
    end(pid, GRACE_S)


def end_predecessor(root: Path, name: str) -> bool:
    """End what a guard that was killed has left of the service `name`; whether anything was."""
    note = _note(root, name)
    mark = note.read_text(encoding="utf-8") if note.exists() else ""
    if found := bool(mark) and bool(reaper.marked(mark)):
        reaper.end(mark)
    return found


def main(words: Sequence[str]) -> int:
    """Run the service until one of us ends, and end the other; returns its exit code."""
    name, *command = words
    if sys.platform == "linux":
        # The kernel tells us when supervisord is gone (PR_SET_PDEATHSIG of prctl(2)).
        ctypes.CDLL(None).prctl(1, signal.SIGTERM)
    emit, end_all = partial(print, flush=True), end_children_first
    with environment.terminable():
        end_predecessor(Path.cwd(), name)
        watch(Path.cwd(), name)
        return stream(command, cwd=Path.cwd(), env=os.environ, emit=emit, ending=end_all)[0]


def watch(root: Path, name: str) -> None:
    """Let what this process starts end with it, and note the mark for who comes next."""
    reaper.watch()
    note = _note(root, name)
    note.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    note.write_text(os.environ[environment.FAMILY], encoding="utf-8")


def _note(root: Path, name: str) -> Path:
    return environment.state_dir(root) / "services" / f"{name}.family"


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
