"""Starting and stopping services: ports, what is configured elsewhere, and supervisord with small
processes in the place of the servers.
"""

import os
import signal
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from adapt.params import InputError
from flows.process import child_environment
from flows.serve import keeper, services
from flows.serve.__main__ import main
from tests.support import limits, ports, workspace


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


def test_a_port_that_is_taken_is_named_before_anything_starts(
    root: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        monkeypatch.setenv("ADAPT_MLFLOW_PORT", str(port))
        monkeypatch.setenv("ADAPT_PREFECT_PORT", str(ports.free()[0]))
        assert main(["start"]) == 2
    remedy = "stop what uses it or set ADAPT_MLFLOW_PORT"
    assert capfd.readouterr().err == f"serve: port {port} for mlflow is taken; {remedy}\n"
    assert workspace.processes(root) == []


@pytest.mark.parametrize("port", ["http", "0", "70000", ""])
def test_a_port_is_a_number(
    root: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], port: str
) -> None:
    monkeypatch.setenv("ADAPT_PREFECT_PORT", port)
    assert main(["start"]) == 2
    assert (
        capfd.readouterr().err
        == f"serve: ADAPT_PREFECT_PORT: expected a port number, got {port!r}\n"
    )


def test_outside_a_workspace(root: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (root / "infra" / "prefect.yaml").unlink()
    assert main(["start"]) == 2
    assert "no infra/prefect.yaml here; run from the project's root" in capfd.readouterr().err


def test_stopping_twice_and_stopping_nothing(root: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["stop"]) == 0
    assert capfd.readouterr().out == "nothing runs\n"
    assert main(["status"]) == 1
    assert capfd.readouterr().out.splitlines() == [
        "prefect-server: does not run",
        "mlflow: does not run",
        "prefect-worker: does not run",
    ]


@pytest.fixture
def kept(root: Path) -> Iterator[Path]:
    """A workspace in which nothing that is started stays after the test."""
    yield root
    keeper.stop(root)
    assert workspace.processes(root) == []


def service(root: Path, name: str, script: str) -> services.Service:
    """A small program as a service: it works when it has written a file of its name."""
    (root / f"{name}_program.py").write_text(f"from pathlib import Path\n{script}")
    return services.Service(
        name=name,
        command=(f"{name}_program",),
        address="http://127.0.0.1:1",
        answers=(root / name).exists,
    )


def bring_up(root: Path, *wanted: services.Service) -> None:
    keeper.configure(root, wanted)
    env = child_environment({"PYTHONPATH": f"{root}{os.pathsep}{workspace.ROOT}"})
    for one in wanted:
        keeper.bring_up(root, one, env)


CHILD = "import subprocess; subprocess.Popen(['sleep', '595'], cwd='.')\n"
WORKS = "import os, time; Path({name!r}).write_text(str(os.getpid())); time.sleep(600)"


def test_it_is_reached_through_a_socket_of_this_user_alone(kept: Path) -> None:
    bring_up(kept, service(kept, "mlflow", WORKS.format(name="mlflow")))
    info = keeper.processes(kept)["mlflow"]
    assert info["address"] == "http://127.0.0.1:1"
    supervisord = psutil.Process(info["pid"]).parent()
    assert supervisord is not None
    assert supervisord.net_connections("inet") == []
    (path,) = {
        Path(each.laddr).parent for each in supervisord.net_connections("unix") if each.laddr
    }
    assert stat.S_IMODE(path.stat().st_mode) == 0o700


@pytest.mark.parametrize("deep", ["", "a" * 60])
def test_a_deep_folder_is_no_obstacle(
    root: Path, monkeypatch: pytest.MonkeyPatch, deep: str
) -> None:
    monkeypatch.setenv("ADAPT_STATE", str(root / deep / ".state"))
    bring_up(root, service(root, "mlflow", WORKS.format(name="mlflow")))
    assert list(keeper.processes(root)) == ["mlflow"]
    keeper.stop(root)
    assert workspace.processes(root) == []


def test_what_dies_comes_back_without_the_children_it_had(kept: Path) -> None:
    """A child that stayed would keep the port, as that of MLflow's server does."""
    bring_up(kept, service(kept, "mlflow", CHILD + WORKS.format(name="mlflow")))
    first = int((kept / "mlflow").read_text())
    (kept / "mlflow").unlink()
    os.kill(first, signal.SIGKILL)
    limits.until((kept / "mlflow").exists, "second start")
    assert "mlflow" in keeper.processes(kept)
    assert len([line for line in workspace.processes(kept) if line.startswith("sleep")]) == 1


def test_nothing_is_left_when_the_keeper_is_killed(root: Path) -> None:
    bring_up(root, service(root, "mlflow", WORKS.format(name="mlflow")))
    supervisord = psutil.Process(keeper.processes(root)["mlflow"]["pid"]).parent()
    assert supervisord is not None
    supervisord.kill()
    limits.until(lambda: not workspace.processes(root), "end of the services")
    assert keeper.processes(root) == {}


def test_stop_ends_what_a_service_has_started(
    root: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    bring_up(root, service(root, "mlflow", CHILD + WORKS.format(name="mlflow")))
    assert len([line for line in workspace.processes(root) if line.startswith("sleep")]) == 1
    assert main(["stop"]) == 0
    assert capfd.readouterr().out == "mlflow: stopped\n"
    assert workspace.processes(root) == []


def test_a_worker_outlives_its_run(root: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """The run closes what it has opened although its worker would not wait for it."""
    run = (
        "import signal, sys, time; from pathlib import Path\n"
        "def leave(*_): time.sleep(2); Path('closed').touch(); sys.exit()\n"
        "signal.signal(signal.SIGTERM, leave); Path('prefect-worker').touch(); time.sleep(600)"
    )
    (root / "run.py").write_text(run)
    worker = (
        "import signal, subprocess, sys, time\n"
        "run = subprocess.Popen([sys.executable, 'run.py'], start_new_session=True)\n"
        "signal.signal(signal.SIGTERM, lambda *_: (run.kill(), sys.exit()))\n"
        "time.sleep(600)"
    )
    bring_up(root, service(root, "prefect-worker", worker))
    assert main(["stop"]) == 0
    assert capfd.readouterr().out.splitlines() == [
        "prefect-worker: a retraining is under way and is stopped",
        "prefect-worker: stopped",
    ]
    assert (root / "closed").exists()
    assert workspace.processes(root) == []


def test_a_service_that_ends_at_once_says_why(kept: Path) -> None:
    with pytest.raises(InputError, match="mlflow ended at once: no such store"):
        bring_up(kept, service(kept, "mlflow", "raise SystemExit('no such store')"))


def test_a_failed_start_leaves_what_ran_before_and_nothing_else(
    root: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PYTHONPATH", f"{root}{os.pathsep}{workspace.ROOT}")
    good = service(root, "mlflow", WORKS.format(name="mlflow"))
    bad = service(root, "prefect-worker", "raise SystemExit('no such pool')")
    monkeypatch.setattr("flows.serve.__main__.services", lambda root: [good, bad])
    assert main(["start"]) == 2
    assert "prefect-worker ended at once: no such pool" in capfd.readouterr().err
    assert workspace.processes(root) == []
    bring_up(root, good)
    (root / "mlflow").unlink()
    assert main(["start"]) == 2
    assert "mlflow: runs already" in capfd.readouterr().out
    assert list(keeper.processes(root)) == ["mlflow"]
    keeper.stop(root)
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
