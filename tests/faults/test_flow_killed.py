"""The process of a retraining dies, or what it has started, at each stage."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from flows import tasks, turn
from flows.process import child_environment
from tests.support import limits, quick, retrainings, workspace
from tests.support.faults import fault

STAGES = ("data", "base", "pairs", "train", "answer", "evaluate")

pytestmark = pytest.mark.filterwarnings(
    "ignore::DeprecationWarning:dvc", "ignore:_NoneStep.value:DeprecationWarning"
)


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ADAPT_STATE", str(tmp_path / ".state"))
    return quick.make(tmp_path)


@fault(
    "the retraining is killed (SIGKILL, then SIGTERM) at each of the six stages",
    keeps="all stages that have ended; no process is left after 30 s, and no partial folder",
    says="retrain: stopped; finished stages are kept, the next retraining goes on from there",
    then="goes on with the stage that was cut off",
)
def test_a_retraining_is_killed_at_each_stage(root: Path) -> None:
    for stage in STAGES:
        for number in (signal.SIGKILL, signal.SIGTERM):
            with retrainings.under_way(root, stage) as killed:
                now = turn.running(root)
                assert now is not None and now.doing == f"at stage {stage}"
                os.kill(killed.pid or 0, number)
                workspace.all_end(root, limits.ORPHANS_S)
            assert turn.running(root) is None
            assert retrainings.half_written(root) == []
        assert retrainings.go_on(root, stage) == "ran"
    assert tasks.pending(root) == []


@fault(
    "a stage is killed (SIGKILL, as when memory is full)",
    keeps="all stages that have ended",
    says="data: was killed by SIGKILL: sleeping",
    then="goes on with that stage",
)
def test_a_stage_is_killed(root: Path) -> None:
    with retrainings.under_way(root, "data"):
        retrainings.kill(retrainings.stage(root))
        limits.until(lambda: "data: Failed" in said(root), "word about the stage")
        assert "data: Failed data: was killed by SIGKILL: sleeping" in said(root)
    assert retrainings.go_on(root, "data") == "ran"


@fault(
    "DVC is killed under a retraining",
    keeps="all stages that have ended; its stage ends with it",
    says="data: sleeping",
    then="goes on with that stage; the lock of the dead DVC is dropped",
)
def test_dvc_is_killed(root: Path) -> None:
    with retrainings.under_way(root, "data"):
        stage = psutil.Process(retrainings.stage(root))
        retrainings.kill(retrainings.dvc(root))
        limits.until(lambda: not stage.is_running(), "end of the stage", limits.ORPHANS_S)
        limits.until(lambda: "data: Failed" in said(root), "word about the stage")
    assert retrainings.go_on(root, "data") == "ran"


BOUND = """
import time
from adapt import environment
with environment.terminable(), environment.bound_to_dvc():
    print("sleeping", flush=True)
    time.sleep(120)
"""


@fault(
    "a `dvc repro` that was started by hand is killed",
    keeps="the results of before; its stage ends within seconds instead of going on unseen",
    then="runs that stage",
)
def test_dvc_repro_by_hand_is_killed(root: Path) -> None:
    (root / "stage.py").write_text(BOUND)
    (root / "dvc.yaml").write_text("stages: {slow: {cmd: python stage.py; true, outs: [made]}}")
    command = [sys.executable, "-m", "dvc", "repro", "slow"]
    env = child_environment(quick.environment(root))
    pipe = subprocess.PIPE
    with subprocess.Popen(command, cwd=root, env=env, stdout=pipe, start_new_session=True) as dvc:
        assert dvc.stdout is not None
        while b"sleeping" not in dvc.stdout.readline():
            assert dvc.poll() is None
        dvc.kill()
    workspace.all_end(root, limits.ORPHANS_S)


@fault(
    "what a retraining has started puts itself elsewhere (a daemon), and the retraining is killed",
    keeps="nothing of it stays: what carries the mark of a retraining ends with it",
)
def test_what_has_left_the_group_ends_too(tmp_path: Path) -> None:
    script = tmp_path / "start.py"
    script.write_text(
        "import subprocess, sys, time\nfrom flows import reaper\nreaper.watch()\n"
        "daemon = 'import os, time; os.fork() and os._exit(0); os.setsid(); time.sleep(120)'\n"
        "subprocess.run([sys.executable, '-c', daemon], cwd=sys.argv[1])\n"
        "print('started', flush=True)\ntime.sleep(120)\n"
    )
    command = [sys.executable, str(script), str(tmp_path)]
    env = child_environment(quick.environment(tmp_path))
    with subprocess.Popen(command, env=env, stdout=subprocess.PIPE) as flow:
        assert flow.stdout is not None and flow.stdout.readline() == b"started\n"
        assert len(workspace.processes(tmp_path)) == 2
        flow.kill()
    workspace.all_end(tmp_path, limits.ORPHANS_S)


def said(root: Path) -> str:
    return (root / ".state" / "said.txt").read_text()
