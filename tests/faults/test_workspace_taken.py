"""Somebody else has the workspace, or a dead process still seems to have it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from flows import dvc_lock, outlook, tasks, turn
from flows.options import Retraining
from tests.support import limits, quick, retrainings
from tests.support.faults import fault

pytestmark = pytest.mark.filterwarnings(
    "ignore::DeprecationWarning:dvc", "ignore:_NoneStep.value:DeprecationWarning"
)


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for key in ("MLFLOW_TRACKING_URI", "PREFECT_API_URL"):
        monkeypatch.delenv(key, raising=False)
    monkeypatch.setenv("ADAPT_STATE", str(tmp_path / ".state"))
    return quick.make(tmp_path)


@fault(
    "`--dry-run` while a retraining runs",
    keeps="both: the dry run takes no lock",
    says="A retraining is running here (process 4711, since 2026-11-26 03:00 UTC, at stage train, "
    "4 of 6). What is due can be told when that has ended: ...",
)
def test_a_dry_run_answers_during_a_run(root: Path) -> None:
    with retrainings.under_way(root, "data") as flow:
        first, second = outlook.sentences(root, Retraining())
        assert first.startswith(f"A retraining is running here (process {flow.pid}, since ")
        assert first.endswith(", at stage data).")
        assert second.startswith("What is due can be told when that has ended: another DVC command")
    would = "Would run: data, base, pairs, train, answer, evaluate."
    assert would in outlook.sentences(root, Retraining())


@fault(
    "two retrainings are started at once",
    keeps="the first one; the other gives up at once, or waits with --wait-minutes",
    says="another retraining is running here (process 4711, since 2026-11-26 03:00 UTC, at stage "
    "train, 4 of 6); wait until it ends, or let this one wait with --wait-minutes",
    then="has its turn",
)
def test_two_at_once(root: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with retrainings.under_way(root, "data") as flow:
        with pytest.raises(turn.Busy) as caught, turn.taken(root):
            raise AssertionError
        assert f"running here (process {flow.pid}, since " in str(caught.value)
        assert "\n" not in str(caught.value)
        retrainings.kill(flow.pid or 0)
        with turn.taken(root, wait_seconds=limits.STEP_S):
            assert turn.holder(root) == turn.Holder(os.getpid(), turn.holder(root).since)  # type: ignore[union-attr]
    assert f"waiting for another retraining (process {flow.pid}" in capfd.readouterr().err


@fault(
    "a killed retraining leaves its name in the lock",
    keeps="nothing is blocked: the kernel has dropped the lock",
    then="has its turn at once",
)
def test_a_lock_of_a_dead_retraining(root: Path) -> None:
    with retrainings.under_way(root, "data") as flow:
        retrainings.kill(flow.pid or 0)
        flow.join()
    assert turn.holder(root) is not None and turn.running(root) is None
    with turn.taken(root):
        assert turn.running(root) is not None


def left_behind(root: Path, pid: int, command: str) -> Path:
    """What DVC leaves in its file of locks when it is killed in the middle of stage `data`."""
    path = root / ".dvc" / "tmp" / "rwlock"
    note = {"pid": pid, "cmd": command}
    inputs = {str(root / "params.yaml"): [note]}
    path.write_text(
        json.dumps({"write": {str(root / "results/data/splits"): note}, "read": inputs})
    )
    return path


@fault(
    "DVC was killed, and its process id belongs to another program now (a container's restart)",
    keeps="all results; the note of the dead DVC is dropped",
    says=".dvc/tmp/rwlock named a process that has ended",
    then="runs as if there had been none",
)
def test_a_lock_whose_number_another_process_has(root: Path) -> None:
    path = left_behind(root, os.getpid(), "dvc repro --single-item data")
    with pytest.raises(tasks.Blocked, match="another DVC command works in this workspace"):
        tasks.changed(root, ["data"], tries=1)
    assert dvc_lock.mend(root) == [f"{path} named a process that has ended"]
    assert tasks.changed(root, ["data"]) == {"data"}
    assert dvc_lock.mend(root) == []


@fault(
    "DVC was killed in a container without an init: its dead process stays in the table",
    keeps="all results; the note of the dead DVC is dropped",
    says=".dvc/tmp/rwlock named a process that has ended",
    then="runs as if there had been none",
)
def test_a_lock_of_a_process_that_nobody_has_waited_for(root: Path) -> None:
    dead = subprocess.Popen([sys.executable, "-c", "pass"])
    limits.until(lambda: not retrainings.is_alive(dead.pid), "end of the process")
    path = left_behind(root, dead.pid, f"{sys.executable} -c pass")
    assert dvc_lock.mend(root) == [f"{path} named a process that has ended"]
    dead.wait()
    assert tasks.changed(root, ["data"]) == {"data"}


@fault(
    "DVC's file of locks is cut off: its writer was killed, or the disk was full",
    keeps="all results; the file is made anew",
    says=".dvc/tmp/rwlock was cut off, and is made anew",
    then="runs as if nothing had been",
)
def test_a_lock_that_is_cut_off(root: Path) -> None:
    path = left_behind(root, 1, "dvc repro")
    path.write_text(path.read_text()[:20])
    assert dvc_lock.mend(root) == [f"{path} was cut off, and is made anew"]
    assert tasks.changed(root, ["data"]) == {"data"}


@fault(
    "DVC's locks are held by a DVC that lives",
    keeps="that one's work: its notes are left alone",
    says="another DVC command works in this workspace: (PID 4711): dvc repro data; wait until it "
    "has ended",
)
def test_a_lock_of_a_living_dvc_is_left_alone(root: Path) -> None:
    with retrainings.under_way(root, "data"):
        before = (root / ".dvc" / "tmp" / "rwlock").read_text()
        assert dvc_lock.mend(root) == []
        assert (root / ".dvc" / "tmp" / "rwlock").read_text() == before


def test_work_that_lacks_processes_is_not_taken_for_a_turn_that_is_taken(tmp_path: Path) -> None:
    """`fork` raises the error of a lock that another process has."""
    with pytest.raises(BlockingIOError, match="Resource temporarily"), turn.taken(tmp_path):
        raise BlockingIOError(11, "Resource temporarily unavailable")
