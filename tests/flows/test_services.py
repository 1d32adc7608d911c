"""Starting and stopping services, as far as it needs none: ports, stale process ids, what is
configured elsewhere.
"""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
import yaml
from prefect.client.schemas.schedules import CronSchedule

from adapt.params import InputError
from flows import retrain
from flows.serve import daemons, services
from tests.support import workspace


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for key in (
        "PREFECT_API_URL",
        "MLFLOW_TRACKING_URI",
        "ADAPT_PREFECT_PORT",
        "ADAPT_MLFLOW_PORT",
    ):
        monkeypatch.delenv(key, raising=False)
    monkeypatch.setenv("ADAPT_STATE", str(tmp_path / ".state"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "infra").mkdir()
    (tmp_path / "infra" / "prefect.yaml").touch()
    return tmp_path


def remember(root: Path, name: str, pid: int, born: float) -> Path:
    path = root / ".state" / "services" / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"pid": pid, "born": born, "address": "http://127.0.0.1:1"}))
    return path


def test_a_port_that_is_taken_is_named_before_anything_starts(
    root: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        monkeypatch.setenv("ADAPT_MLFLOW_PORT", str(port))
        monkeypatch.setenv("ADAPT_PREFECT_PORT", str(workspace.free_port()))
        assert services.main(["start"]) == 2
    assert (
        capfd.readouterr().err
        == f"services: port {port} for mlflow is taken; stop what uses it or set ADAPT_MLFLOW_PORT\n"
    )
    assert workspace.processes(root) == []


@pytest.mark.parametrize("port", ["http", "0", "70000", ""])
def test_a_port_is_a_number(
    root: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], port: str
) -> None:
    monkeypatch.setenv("ADAPT_PREFECT_PORT", port)
    assert services.main(["start"]) == 2
    assert (
        capfd.readouterr().err
        == f"services: ADAPT_PREFECT_PORT: expected a port number, got {port!r}\n"
    )


def test_outside_a_workspace(root: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (root / "infra" / "prefect.yaml").unlink()
    assert services.main(["start"]) == 2
    assert "no infra/prefect.yaml here; run from the project's root" in capfd.readouterr().err


def test_stopping_twice_and_stopping_nothing(root: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert services.main(["stop"]) == 0
    assert capfd.readouterr().out == "nothing runs\n"
    assert services.main(["status"]) == 1
    assert capfd.readouterr().out.splitlines() == [
        "prefect-server: does not run",
        "mlflow: does not run",
        "prefect-worker: does not run",
    ]


def test_a_pid_that_another_process_has_got_is_not_touched(
    root: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Our own process stands for it: stopping it would end the tests."""
    path = remember(root, "mlflow", os.getpid(), psutil.Process().create_time() - 1000)
    assert daemons.running(root, "mlflow") is None
    assert services.main(["stop"]) == 0
    assert capfd.readouterr().out == "mlflow: did not run any more\n"
    assert not path.exists()


def test_a_broken_or_dead_pid_file_counts_as_not_running(root: Path) -> None:
    path = remember(root, "mlflow", 2**22 + 1, 0.0)
    assert daemons.running(root, "mlflow") is None
    for text in ("", "{", '{"pid": 1}', "[]"):
        path.write_text(text)
        assert daemons.running(root, "mlflow") is None


def test_stop_ends_what_a_service_has_started(root: Path) -> None:
    script = "import subprocess, sys; subprocess.Popen(['sleep', '95']); print(flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", script],
        cwd=root,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        remember(root, "mlflow", process.pid, psutil.Process(process.pid).create_time())
        assert len(workspace.processes(root)) == 2
        services.stop(root)
    assert workspace.processes(root) == []


def test_what_is_configured_elsewhere_is_not_started(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert [s.name for s in services.services(root)] == [
        "prefect-server",
        "mlflow",
        "prefect-worker",
    ]
    monkeypatch.setenv("PREFECT_API_URL", "https://prefect.example.org/api")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://mlflow.example.org")
    (worker,) = services.services(root)
    assert (worker.name, worker.address) == (
        "prefect-worker",
        "pool local of https://prefect.example.org/api",
    )


def test_a_service_that_ends_at_once_says_why(root: Path) -> None:
    service = daemons.Service(
        name="mlflow",
        command=(sys.executable, "-c", "raise SystemExit('no such store')"),
        address="",
        port=None,
        variable="",
        answers=lambda: False,
    )
    daemons.launch(root, service, dict(os.environ))
    with pytest.raises(InputError, match="mlflow ended at once: no such store"):
        daemons.wait(root, service)


def test_the_shipped_deployment_fits_the_flow() -> None:
    content = yaml.safe_load((workspace.ROOT / services.DEPLOYMENTS).read_text(encoding="utf-8"))
    (nightly,) = content["deployments"]
    assert nightly["entrypoint"] == "flows/retrain.py:retrain"
    assert retrain.retrain.name == "retrain"
    assert set(nightly["parameters"]) == set(retrain.retrain.parameters.properties)
    retrain.Retraining(**nightly["parameters"]["options"])
    assert nightly["work_pool"]["name"] == services.POOL
    (schedule,) = nightly["schedules"]
    CronSchedule(cron=schedule["cron"], timezone=schedule["timezone"])
    assert str(workspace.ROOT) not in (workspace.ROOT / services.DEPLOYMENTS).read_text(
        encoding="utf-8"
    )
