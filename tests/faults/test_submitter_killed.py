"""The process that has sent a stage to a cluster is killed, at three moments of one submission: the
runs after it make one job and one result.
"""

import json
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.test_submit import SUBMIT, client_env, workspace
from tests.support import limits
from tests.support.faults import fault
from tests.support.ray_head import RayHead, ray_head

pytestmark = pytest.mark.slow

__all__ = ["workspace"]  # a fixture

KILLED = """
import os, signal, sys
from adapt.cluster import jobs, storage

def die(*args, **kwargs):
    os.kill(os.getpid(), signal.SIGKILL)

if sys.argv[2] == "before the job":
    jobs._submit = die
if sys.argv[2] == "after the job":
    storage.collect = die
"""


@pytest.fixture(scope="module")
def head() -> Iterator[RayHead]:
    with ray_head() as running:
        yield running
    assert running.processes() == []


def start(head: RayHead, workspace: Path, moment: str = "") -> subprocess.Popen[str]:
    mode = f"wait {workspace / 'gate'}"
    content = {"seed": 3, "echo": {"mode": mode, "layers": [1, 4]}}
    command = [sys.executable, "-c", KILLED + SUBMIT, json.dumps([content, "", ""]), moment]
    with (workspace / "log").open("wb") as log:
        env = client_env(head, workspace)
        return subprocess.Popen(command, cwd=workspace, env=env, stdout=log, stderr=log)


def ended(process: subprocess.Popen[str], workspace: Path) -> tuple[int, str]:
    code = process.wait(limits.STEP_S)
    return code, (workspace / "log").read_text()


def until_said(words: str, workspace: Path) -> None:
    """Wait for words of the log; a failure shows all of it."""
    log = workspace / "log"
    try:
        limits.until(lambda: words in log.read_text(), repr(words))
    except AssertionError as error:
        raise AssertionError(f"{error}:\n{log.read_text()}") from None


@fault(
    "The submitter of a cluster job is killed: before it has sent it, while it runs, and after it "
    "has ended but before its result was collected",
    keeps="the job and its result",
    says="job <name> on <host>, which runs already; <folder>: the result is there already",
    then="finds the job, or its result; there is one job and one result",
)
@pytest.mark.timeout(limits.WHOLE_TEST_S)
def test_a_killed_submitter_makes_no_second_job(head, workspace):
    # 1. Before there is a job.
    assert ended(start(head, workspace, "before the job"), workspace)[0] == -signal.SIGKILL
    # 2. While it runs.
    second = start(head, workspace)
    until_said("mode wait", workspace)
    name = re.search(r"job (adapt-echo-[0-9a-f]{16}) on", (workspace / "log").read_text())[1]
    second.kill()
    second.wait()
    # 3. After it has ended.
    third = start(head, workspace, "after the job")
    until_said("which runs already", workspace)
    (workspace / "gate").touch()
    assert ended(third, workspace)[0] == -signal.SIGKILL
    # 4. The next run has the result of the one job.
    code, said = ended(start(head, workspace), workspace)
    assert code == 0 and f"{name}: the result is there already" in said, said
    assert json.loads((workspace / "out/metrics.json").read_text()) == {"sum": 5.0, "seed": 3.0}
    storage = workspace / ".state/ray/storage/jobs"
    assert [path.name for path in storage.iterdir()] == [name]
    logs = head.folder.glob("ray/session_*/logs/job-driver-adapt-echo-*.log")
    assert {path.name for path in logs} == {f"job-driver-{name}.log"}
