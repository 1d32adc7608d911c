"""What a retraining needs around its stages goes away: servers, disks, databases, the clock."""

import os
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
from prefect.testing.utilities import prefect_test_harness

from adapt import params
from adapt.registry import registry
from adapt.tracking import store
from flows import outlook, plan, report, retrain, running
from flows.options import Retraining
from tests.support import disks, limits, quick, retrainings, tracked, workspace
from tests.support.faults import fault

STAGES = ("data", "base", "pairs", "train", "answer", "evaluate")
AWAY = "http://127.0.0.1:9"  # nobody listens there

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings(
        "ignore::DeprecationWarning:dvc", "ignore:_NoneStep.value:DeprecationWarning"
    ),
]


@pytest.fixture(scope="module", autouse=True)
def prefect() -> Iterator[None]:
    """One temporary Prefect server for all tests of this file."""
    with prefect_test_harness(server_startup_timeout=limits.SERVER_START_S):
        yield


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace whose stages have run, and whose gate has not been asked; made once."""
    root = tmp_path_factory.mktemp("made")
    tracked.store_in(root / ".state" / "mlflow")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ADAPT_STATE", str(root / ".state"))
        quick.make(root)
        assert [retrainings.go_on(root, stage) for stage in STAGES] == ["ran"] * 6
    return root


@pytest.fixture
def root(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return entered(made, tmp_path / "work", monkeypatch)


def entered(made: Path, root: Path, patch: pytest.MonkeyPatch) -> Path:
    """A copy of the workspace, in which this process works."""
    shutil.copytree(made, root, symlinks=True)
    for key, value in quick.environment(root).items():
        patch.setenv(key, value)
    for key in ("MLFLOW_TRACKING_URI", "ADAPT_PARENT_RUN", "PREFECT_API_URL"):
        patch.delenv(key, raising=False)
    patch.chdir(root)
    patch.setattr(running.promote_task, "retry_delay_seconds", 0)
    return root


def run(**options: Any) -> Any:
    return retrain.retrain(Retraining(**options), return_state=True)


def promoted(root: Path) -> None:
    """The next retraining ends well."""
    state = run()
    assert (state.name, state.message) == ("Promoted", "adapt version 1 was promoted to champion")
    config = params.load(params.read(root / "params.yaml"), "tracking", store.TrackingConfig)
    assert registry.champion(store.Store(root, config)) == "1"
    workspace.all_end(root)


@fault(
    "the registry is away when a retraining ends",
    keeps="all stages; the records wait in their journals",
    says="MLflow store http://... cannot be used: ...; the stages are up to date, the next "
    "retraining asks the gate",
    then="asks the gate and promotes",
)
def test_the_registry_is_away_at_the_end(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", AWAY)
        patch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
        state = run()
        assert state.name == "RegistryAway"
        assert AWAY in state.message and state.message.endswith(
            "; the stages are up to date, the next retraining asks the gate"
        )
        assert "\n" not in state.message
        # A dry run answers all the same.
        would = outlook.sentences(root, Retraining())
        assert "Would run: no stage." in would
    promoted(root)


@fault(
    "the SQLite file of MLflow is locked by another program when a retraining ends",
    keeps="all stages; the records wait in their journals",
    says="... cannot be asked about the champion: ... database is locked; the stages are up to "
    "date, the next retraining asks the gate",
    then="asks the gate and promotes",
)
def test_the_database_is_locked(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    database = root / ".state" / "mlflow" / "mlflow.db"
    with sqlite3.connect(database) as other:
        other.execute("PRAGMA journal_mode=DELETE")
        other.execute("BEGIN EXCLUSIVE")
        state = run()
        assert state.name == "RegistryAway", state.message
        assert "database is locked" in state.message and "\n" not in state.message
        other.rollback()
    promoted(root)


@contextmanager
def disk(at: Path, megabytes: int) -> Iterator[Path]:
    """A small disk of its own, which goes when all that works on it has ended."""
    with disks.disk(at, f"{megabytes}m"):
        try:
            yield at
        finally:
            workspace.all_end(at)


@fault(
    "the disk is full",
    keeps="all results of before; no half-written folder stays",
    says="the disk is full; make room and run the same command again: what is finished is kept",
    then="goes on with the stage that was due",
)
def test_the_disk_is_full(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with disk(tmp_path / "disk", 24) as small:
        root = entered(made, small / "work", monkeypatch)
        quick.tuned(root, 0.91)
        with (small / "filler").open("wb", buffering=0) as filler:
            fill(filler)
            state = run()
        assert state.is_failed() and state.name in ("Failed", "InputError")
        assert "\n" not in state.message
        assert "disk is full" in state.message or "No space left on device" in state.message
        assert retrainings.half_written(root) == []
        (small / "filler").unlink()
        promoted(root)


def fill(file: Any) -> None:
    try:
        while True:
            file.write(b"\0" * 65536)
    except OSError:
        return


@fault(
    "the state folder cannot be written to (read-only)",
    keeps="everything; --dry-run answers",
    says=".state/retrain.lock: the disk may only be read; mount it for writing, or ...",
    then="works as soon as the folder can be written to",
)
def test_the_state_folder_is_read_only(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with disk(tmp_path / "state", 24) as state_dir:
        monkeypatch.setenv("ADAPT_STATE", str(state_dir))
        disks.read_only(state_dir)
        state = run()
        assert state.name == "Failed"
        assert state.message.startswith(f"{state_dir}/retrain.lock: the disk may only be read; ")
        assert "Would run: no stage." in outlook.sentences(root, Retraining())
        subprocess.run(["mount", "-o", "remount,rw", str(state_dir)], check=True)
        promoted(root)


@fault(
    "the clock jumps back by a day in the middle of a retraining",
    keeps="everything; durations and time limits do not follow the clock of the wall",
    then="has nothing to do",
)
def test_the_clock_jumps(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    quick.tuned(root, 0.9001)  # train is due
    real, reads = time.time, iter([0.0] * 40)
    monkeypatch.setattr(time, "time", lambda: real() - next(reads, 86400.0))
    assert run().name == "Promoted"
    ending = report.last(root)
    assert ending is not None and 0 < ending.seconds < limits.STEP_S
    assert run().name == "Unchanged"
    workspace.all_end(root)


@fault(
    "Prefect's server dies in the middle of a retraining",
    keeps="the stages go on, the gate is asked, the champion moves",
    says="the table of the result, as always",
    then="has nothing to do",
)
def test_prefect_dies_in_the_middle(root: Path) -> None:
    quick.tuned(root, 0.92)
    (root / "sleep.txt").write_text("120")
    # Prefect's client waits a minute for a server to come back, this one will not.
    env = quick.environment(root) | {"PREFECT_CLIENT_MAX_RETRIES": "0"}
    command = [sys.executable, "-m", "flows.retrain"]
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    with subprocess.Popen(command, cwd=root, env=env, **pipes) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.rstrip().endswith("sleeping"):
                break
        (server,) = [p for p in psutil.Process(process.pid).children() if "uvicorn" in p.cmdline()]
        server.kill()
        (root / "sleep.txt").write_text("0")
        os.kill(retrainings.stage(root), 9)  # train is tried twice
        said = process.stdout.read()
    assert process.returncode == 0, said
    assert "Traceback" not in said
    assert "adapt version 1 was promoted to champion." in said
    tracked.settled(root, env)
    assert not workspace.processes(root)
    assert plan.make(root, force=False).due == ()
