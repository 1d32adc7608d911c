"""DVC's stages as seen by a flow: order, what is due, one stage's run and what its failure says;
with real DVC.
"""

import subprocess
import sys
import uuid
from pathlib import Path

import psutil
import pytest
import yaml
from prefect.client.schemas.objects import TaskRun
from prefect.states import Failed, State

from adapt.params import InputError
from flows.process import child_environment
from flows.tasks import changed, explain, order, pending, repro, worth_retrying
from tests.support import limits
from tests.support.workspace import processes, repository

pytestmark = pytest.mark.filterwarnings("ignore:_NoneStep.value:DeprecationWarning")  # inside DVC

# Not in the order in which they run; `late` is out of date only when `middle` changes.
GRAPH = """
stages:
  late: {cmd: "cp middle.txt late.txt", deps: [middle.txt], outs: [late.txt]}
  first: {cmd: "cp source.txt first.txt", deps: [source.txt], outs: [first.txt]}
  middle: {cmd: "wc -l < first.txt > middle.txt", deps: [first.txt], outs: [middle.txt]}
  aside: {cmd: "cp other.txt aside.txt", deps: [other.txt], outs: [aside.txt]}
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return workspace(tmp_path, GRAPH)


def workspace(root: Path, graph: str) -> Path:
    (root / "dvc.yaml").write_text(graph)
    for name in ("source.txt", "other.txt"):
        (root / name).write_text("one line\n")
    repository(root)
    subprocess.run(
        [sys.executable, "-m", "dvc", "init", "--quiet"],
        cwd=root,
        check=True,
        env=child_environment({}),
    )
    return root


def run(root: Path, stage: str, force: bool = False, shell: str = "") -> tuple[str, str]:
    env = child_environment({"SHELL": shell} if shell else {})
    outcome = repro(root, stage, env, lambda line: None, force)
    return outcome.kind, outcome.message


def test_order_is_that_of_the_graph(root: Path) -> None:
    needs = order(root)
    assert needs == {"first": set(), "middle": {"first"}, "late": {"middle"}, "aside": set()}
    names = list(needs)
    assert names.index("first") < names.index("middle") < names.index("late")


def test_imported_data_is_no_stage(root: Path) -> None:
    (root / "source.txt").unlink()
    (root / "raw.txt").write_text("raw")
    subprocess.run([sys.executable, "-m", "dvc", "add", "--quiet", "raw.txt"], cwd=root, check=True)
    (root / "dvc.yaml").write_text(
        'stages: {use: {cmd: "cp raw.txt use.txt", deps: [raw.txt], outs: [use.txt]}}'
    )
    assert order(root) == {"use": set()}


def test_pending_knows_what_depends_on_a_change(root: Path) -> None:
    assert set(pending(root)) == {"first", "middle", "late", "aside"}
    assert [run(root, stage) for stage in pending(root)] == [("ran", "")] * 4
    assert pending(root) == []
    (root / "source.txt").write_text("another line\n")
    assert changed(root) == {"first"}
    assert pending(root) == ["first", "middle", "late"]
    assert pending(root, forced=["late"]) == ["first", "middle", "late"]
    assert run(root, "first") == ("ran", "")
    # `middle` counts lines: its input is another, its output is the same, so `late` is not due when
    # its turn comes.
    assert run(root, "middle") == ("ran", "")
    assert run(root, "late") == ("unchanged", "")
    assert pending(root, forced=["middle"]) == ["middle", "late"]
    assert run(root, "late", force=True) == ("ran", "")


def test_stage_by_stage_and_dvc_repro_leave_the_same_lock_file(root: Path) -> None:
    for stage in pending(root):
        assert run(root, stage) == ("ran", "")
    ours = yaml.safe_load((root / "dvc.lock").read_text())
    (root / "dvc.lock").unlink()
    subprocess.run(
        [sys.executable, "-m", "dvc", "repro", "--quiet", "--force"], cwd=root, check=True
    )
    assert yaml.safe_load((root / "dvc.lock").read_text()) == ours


def test_a_broken_graph_is_one_line(root: Path) -> None:
    (root / "dvc.yaml").write_text("stages: {a: [}")
    for ask in (order, changed):
        with pytest.raises(InputError, match=r"^DVC: .*dvc\.yaml") as error:
            ask(root)
        assert "\n" not in str(error.value)


FAILING = """
stages:
  mistake:
    cmd:
      "echo 'adapt mistake: params.yaml: unknown key train.step' >&2;
      echo 'leaked 1 object' >&2; exit 2"
    outs: [a]
  crash: {cmd: "python -c 'raise RuntimeError(42)'", outs: [b]}
  killed:
    cmd: "python -c 'import os; print(4, flush=True); os.kill(os.getpid(), 9)'"
    outs: [c]
  missing: {cmd: "true", deps: [nowhere.txt], outs: [d]}
  slow: {cmd: "sleep 60", outs: [e]}
"""


def test_a_failure_is_one_line_that_says_whose_fault_it_is(tmp_path: Path) -> None:
    root = workspace(tmp_path, FAILING)
    assert run(root, "mistake") == (
        "InputError",
        "adapt mistake: params.yaml: unknown key train.step",
    )
    assert run(root, "crash") == ("Failed", "crash: exit code 1: RuntimeError: 42")
    # Bash hands the stage's end on, other shells say it themselves.
    for shell in ("/bin/bash", "/bin/sh"):
        kind, message = run(root, "killed", shell=shell)
        assert (kind, message) == ("Failed", "killed: was killed by SIGKILL: 4")
    kind, message = run(root, "missing")
    assert kind == "InputError"
    assert "nowhere.txt" in message and "\n" not in message


def test_a_stage_that_another_dvc_runs_is_busy(tmp_path: Path) -> None:
    root = workspace(tmp_path, FAILING)
    command = [sys.executable, "-m", "dvc", "repro", "--single-item", "slow"]
    other = subprocess.Popen(command, cwd=root, stdout=subprocess.DEVNULL, start_new_session=True)
    try:
        lock = root / ".dvc" / "tmp" / "rwlock"
        limits.until(lambda: lock.exists() and psutil.Process(other.pid).children(), "stage")
        assert run(root, "slow", force=True)[0] == "Busy"
        with pytest.raises(
            InputError, match=f"another DVC command works in this workspace: .PID {other.pid}"
        ):
            changed(root, tries=2, delay=0.1)
    finally:
        for process in [
            *psutil.Process(other.pid).children(recursive=True),
            psutil.Process(other.pid),
        ]:
            process.kill()
        other.wait()
    assert processes(root) == []


def test_dvcs_hints_are_not_passed_on(root: Path) -> None:
    lines: list[str] = []
    repro(root, "first", child_environment({}), lines.append)
    assert lines == ["Running stage 'first':", "> cp source.txt first.txt"]


def test_explain_without_dvcs_verdict() -> None:
    assert explain("train", []) == ("Failed", "train: DVC ended without a word")
    assert explain("train", ["Killed"]) == ("Failed", "train: Killed")


@pytest.mark.parametrize(
    ("stage", "state", "expected"),
    [
        ("train", Failed(name="Failed", message="exit code -9"), [True, False]),
        ("answer", Failed(name="Failed", message="exit code -9"), [True, False]),
        ("evaluate", Failed(name="Failed", message="exit code 1"), [False, False]),
        ("data", Failed(name="Failed", message="exit code 1"), [False, False]),
        ("train", Failed(name="InputError"), [False, False]),
        ("data", Failed(name="Busy"), [True, True, True, False]),
        ("train", Failed(message="timed out", data=TimeoutError()), [False, False]),
    ],
)
def test_retries_where_one_can_help(stage: str, state: State, expected: list[bool]) -> None:
    runs = [
        TaskRun(
            name=stage, task_key=stage, dynamic_key="0", run_count=n + 1, flow_run_id=uuid.uuid4()
        )
        for n in range(len(expected))
    ]
    assert [worth_retrying(None, run, state) for run in runs] == expected
