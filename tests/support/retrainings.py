"""Retrainings without Prefect, to be killed: the turn, the reaper, and DVC with its stages.

Each is a forked process, so that it starts in no time; what it starts is real.
"""

import multiprocessing
import os
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import psutil

from adapt import environment
from flows import dvc_lock, reaper, tasks, turn
from flows.process import child_environment
from tests.support import limits, quick, workspace

SLEEPING = "sleeping"


def _stages(root: Path, out: Path, stages: Sequence[str]) -> None:
    """What a retraining does between its plan and the gate; all that is due unless told which."""
    os.chdir(root)
    os.environ.update(quick.environment(root))
    reaper.watch.cache_clear()
    log = out.open("a", buffering=1)
    with environment.terminable(), turn.taken(root) as mine:
        reaper.watch()
        dvc_lock.mend(root)
        for stage in stages or tasks.pending(root):
            mine.doing(f"at stage {stage}")
            env = child_environment({"ADAPT_PARENT_RUN": "1"})
            emit = partial(print, file=log)
            outcome = tasks.repro(root, stage, env, emit, force=bool(stages))
            print(f"{stage}: {outcome.kind} {outcome.message}", file=log)


@contextmanager
def under_way(root: Path, *stages: str) -> Iterator[multiprocessing.process.BaseProcess]:
    """A retraining whose first stage sleeps; killed at the end if it still runs."""
    (root / "sleep.txt").write_text("120")
    out = root / ".state" / "said.txt"
    out.parent.mkdir(exist_ok=True)
    out.write_text("")
    child = multiprocessing.get_context("fork").Process(target=_stages, args=(root, out, stages))
    child.start()
    try:
        limits.until(lambda: SLEEPING in out.read_text() or not child.is_alive(), "stage")
        assert child.is_alive(), out.read_text()
        yield child
    finally:
        (root / "sleep.txt").unlink()
        child.kill()
        child.join()
        workspace.all_end(root, limits.ORPHANS_S)


def stage(root: Path) -> int:
    """The process of the stage that sleeps."""
    found = [p for p in workspace.found(root) if "quick_stage.py" in " ".join(p.cmdline()[1:2])]
    return int(found[-1].pid)


def dvc(root: Path) -> int:
    """The process of the DVC command above it."""
    found = [p for p in workspace.found(root) if "repro" in p.cmdline()]
    return int(found[0].pid)


def is_alive(pid: int) -> bool:
    """Whether a process still runs; a dead one that nobody has waited for does not."""
    return environment.is_alive(psutil.Process(pid))


def kill(pid: int, number: int = signal.SIGKILL) -> None:
    os.kill(pid, number)


def go_on(root: Path, stage: str) -> str:
    """Run a stage as the next retraining does; returns how it ended."""
    env = child_environment(quick.environment(root) | {"ADAPT_PARENT_RUN": "1"})
    dvc_lock.mend(root)
    outcome = tasks.repro(root, stage, env, lambda _: None, force=True)
    return outcome.message or outcome.kind


def half_written(root: Path) -> list[str]:
    """Folders and files that were half written."""
    names = [path.name for path in (root / "results").rglob("*")]
    return [name for name in names if ".partial-" in name or name.endswith(".previous")]
