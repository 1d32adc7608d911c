"""A real MLflow server that is not there, comes, is killed during a training, and comes back."""

import subprocess
import sys
from pathlib import Path

import pytest

from adapt.tracking import journal
from adapt.tracking.store import Store
from tests.support import limits, mlflow_server, ports, recording, tracked
from tests.support.faults import fault
from tests.support.recording import Training

pytestmark = pytest.mark.slow


@fault(
    "the MLflow server is away when a training begins, is killed in its middle, and stays away",
    keeps="the training does not wait; its curve has every step once, its run begins when it began",
    says="1 runs wait for MLflow at http://...: Connection refused; start it and call this again",
    then="`python -m adapt.tracking flush`, or the next run, brings the rest",
)
def test_a_server_that_comes_and_goes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    port = ports.free()[0]
    address = f"http://127.0.0.1:{port}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    monkeypatch.delenv("ADAPT_STATE", raising=False)
    training = Training(tmp_path, {"MLFLOW_TRACKING_URI": address})
    training.steps(1, 20)  # nobody answers yet
    store = Store(tmp_path, tracked.CONFIG)
    with mlflow_server.running(tmp_path / "server", port):
        # The sender finds it by itself, and goes on while the training does.
        noted = tmp_path / ".state" / "tracking" / training.run_id / journal.SENT
        limits.until(noted.exists, "run in MLflow")
        training.steps(21, 40)
        limits.until(lambda: _curve(store) == list(range(1, 41)), "curve in MLflow")
    training.steps(41, 60)
    assert training.end() == 0
    assert training.errors.read_text() == ""
    flush = [sys.executable, "-m", "adapt.tracking", "flush"]
    refused = subprocess.run(
        flush, cwd=tmp_path, env=training.env, capture_output=True, text=True, check=False
    )
    assert refused.returncode == 1 and refused.stderr.count("\n") == 1
    assert f"1 runs wait for MLflow at {address}: Connection refused; start it" in refused.stderr
    with mlflow_server.running(tmp_path / "server", port):
        tracked.settled(tmp_path, training.env)
        (run,) = recording.found(store)
        assert (run.info.status, _curve(store)) == ("FINISHED", list(range(1, 61)))
        assert run.info.end_time > run.info.start_time
    assert journal.everything(tmp_path) == []


def _curve(store: Store) -> list[int]:
    return [step for run in recording.found(store) for step in recording.curve(store, run)]
