"""The folder of one training on disk: one process has it, and DVC's knowledge ends it.

    <state>/<name>/training.json    since when, of which workspace, with which code
    <state>/<name>/checkpoint/      where a training that was cut off goes on (`checkpoints`)
    <state>/<name>/final/           the result of one that has ended

A result is kept after it has been handed over: between the end of a training and the moment in
which DVC writes its lock, the process may be killed, or a line of its own fail. The next run with
the same name then hands it over again. It costs no space as long as `results/` is on the same file
system, because it is handed over by hard links.
"""

import datetime
import hashlib
import json
import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adapt.files import delete, locked, whole_file
from adapt.names import one_line
from adapt.tracking.lineage import output_hash, stage_hash

ABOUT = "training.json"
LOCKS = "locks"
LONGEST = 2**16  # characters of a note about a training


@dataclass(frozen=True)
class Training:
    """A training that this process has for itself."""

    folder: Path

    @property
    def final(self) -> Path:
        """Its result, once it has ended."""
        return self.folder / "final"


@contextmanager
def claimed(state: Path, name: str, workspace: Path, code: str) -> Iterator[Training]:
    """Have the training `name` below `state` for oneself; waits, and says so, while another has it.

    `code`: a digest of what trains: a result of other code is deleted, its checkpoint is not,
    because a training that failed is often mended and then gone on with.
    """
    with _turn(state, name):
        training = Training(state / name)
        training.folder.mkdir(parents=True, exist_ok=True)
        if training.final.exists() and _about(training.folder).get("code") != code:
            delete(training.final)
        where = os.path.relpath(workspace, state)  # both may be moved together
        note = {"code": code, "workspace": where, "dvc": stage_hash(workspace, "train")}
        with whole_file(training.folder / ABOUT) as partial:
            partial.write_text(json.dumps(note, indent=2), encoding="utf-8")
        yield training


@contextmanager
def _turn(state: Path, name: str) -> Iterator[None]:
    path = state / LOCKS / name
    with ExitStack() as stack:
        # Only the lock's own error: the training may raise one of this kind, as for want of
        # processes.
        try:
            stack.enter_context(locked(path, wait=False))
        except BlockingIOError:
            message = "another process trains with the same data, settings and seed"
            line = one_line(f"train: {message}; waiting for it, to share its result")
            print(line, file=sys.stderr, flush=True)
            stack.enter_context(locked(path))
        yield


def sweep(state: Path, workspace: Path) -> None:
    """Delete the trainings of `workspace` whose result DVC knows, or knows a later one than.

    Trainings of other workspaces, which may share `state`, are theirs to sweep while they exist.
    """
    for path in state.glob(f"*/{ABOUT}"):
        of = Path(os.path.normpath(state / str(_about(path.parent).get("workspace", "?"))))
        if _is_over(path.parent, workspace) if of == workspace else not of.is_dir():
            try:
                with locked(state / LOCKS / path.parent.name, wait=False):
                    delete(path.parent)
            except BlockingIOError:
                continue  # somebody trains


def tell_others(state: Path, name: str, workspace: Path) -> None:
    """Name the trainings of this workspace that have not ended, but for `name`.

    A later result of the workspace sweeps them.
    """
    for path in sorted(state.glob(f"*/{ABOUT}")):
        folder = path.parent
        of = Path(os.path.normpath(state / str(_about(folder).get("workspace", "?"))))
        is_there = of == workspace and folder.name != name and not (folder / "final").exists()
        if is_there and any(one.is_dir() for one in folder.iterdir()):
            why = "cut off, with other settings, inputs or an older version; it is left aside"
            print(one_line(f"train: {folder} is of a training that was {why}"), file=sys.stderr)


def _is_over(folder: Path, workspace: Path) -> bool:
    """Whether DVC's lock has changed since the training began, or has its very curve."""
    if _about(folder).get("dvc") != stage_hash(workspace, "train"):
        return True
    curve = folder / "final" / "history.csv"
    if not curve.is_file():
        return False
    found = hashlib.md5(curve.read_bytes(), usedforsecurity=False).hexdigest()
    return found == output_hash(workspace, "results/train/history.csv")


def when(training: Training) -> str:
    """The minute in which its result was saved."""
    return f"{datetime.datetime.fromtimestamp(training.final.stat().st_mtime):%Y-%m-%d %H:%M}"


def _about(folder: Path) -> dict[str, Any]:
    """What is written down about a training; nothing where that cannot be read."""
    try:
        with (folder / ABOUT).open(encoding="utf-8", errors="replace") as file:
            content = json.loads(file.read(LONGEST))
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}
