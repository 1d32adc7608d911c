"""Guards and supervisord killed, with small processes in the place of the servers."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from flows.process import child_environment
from flows.serve import keeper, services
from flows.serve.__main__ import main
from tests.support import limits, ports, workspace
from tests.support.faults import fault

# As MLflow's server: the child of a service has the port, and outlives its parent.
SERVER = """
import os, subprocess, sys, time
from pathlib import Path
child = "import socket, time; s = socket.create_server(('127.0.0.1', {port})); time.sleep(600)"
subprocess.Popen([sys.executable, "-c", child])
time.sleep(600)
"""


@pytest.fixture
def kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[Path, services.Service]]:
    """A service that is kept, in a workspace in which nothing stays after the test."""
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setenv("ADAPT_STATE", str(tmp_path / ".state"))
    monkeypatch.chdir(tmp_path)
    port = ports.free()[0]
    (tmp_path / "server.py").write_text(SERVER.format(port=port))
    service = services.Service("mlflow", ("server",), "", lambda: listening(port), port)
    start(tmp_path, service)
    yield tmp_path, service
    keeper.stop(tmp_path)
    workspace.all_end(tmp_path)


def start(root: Path, service: services.Service) -> None:
    keeper.configure(root, [service])
    path = f"{root}{os.pathsep}{workspace.ROOT}"
    keeper.bring_up(root, service, child_environment({"PYTHONPATH": path}))


def listening(port: int | None) -> int:
    """The process that has the port, 0 for none."""
    found = [c for c in psutil.net_connections("tcp4") if c.laddr and c.laddr.port == port]
    return next((c.pid or 0 for c in found if c.status == psutil.CONN_LISTEN), 0)


def guard_of(root: Path) -> psutil.Process:
    return psutil.Process(keeper.processes(root)["mlflow"]["pid"])


@fault(
    "a service's guard is killed: its server loses its parent, and keeps the port",
    keeps="the service: supervisord starts it again, after the old one has been ended",
    then="it can be stopped and started as ever",
)
def test_a_guard_that_is_killed(kept: tuple[Path, services.Service]) -> None:
    root, service = kept
    before, guard = listening(service.port), guard_of(root)
    guard.kill()
    limits.until(lambda: listening(service.port) not in (0, before), "another server")
    assert len([line for line in workspace.processes(root) if "create_server" in line]) == 1
    assert guard_of(root) != guard
    assert main(["stop"]) == 0
    assert workspace.processes(root) == [] and not listening(service.port)
    start(root, service)


@fault(
    "supervisord and the guards are killed at once",
    keeps="the port: everything below ends by itself",
    then="`make serve` starts all as on the first day",
)
def test_the_keeper_and_its_guards_are_killed(kept: tuple[Path, services.Service]) -> None:
    root, service = kept
    guard = guard_of(root)
    supervisord = guard.parent()
    assert supervisord is not None
    for one in (guard, supervisord):
        one.suspend()  # neither sees the other go
    for one in (guard, supervisord):
        one.send_signal(signal.SIGKILL)
    workspace.all_end(root, limits.ORPHANS_S)
    assert not listening(service.port)
    assert main(["stop"]) == 0
    start(root, service)
    assert listening(service.port)


@fault(
    "supervisord is killed",
    keeps="nothing of the services: they end within seconds, a retraining first",
    says="nothing runs",
    then="`make serve` starts all again",
)
def test_supervisord_is_killed(
    kept: tuple[Path, services.Service], capfd: pytest.CaptureFixture[str]
) -> None:
    root, service = kept
    supervisord = guard_of(root).parent()
    assert supervisord is not None
    supervisord.kill()
    workspace.all_end(root, limits.ORPHANS_S)
    capfd.readouterr()
    assert main(["stop"]) == 0
    assert capfd.readouterr().out == "nothing runs\n"
    start(root, service)


@fault(
    "a service fails at every start, and is given up",
    keeps="what else runs",
    says="mlflow: did not run any more",
    then="`make serve` tries again",
)
def test_a_service_that_was_given_up(
    kept: tuple[Path, services.Service], capfd: pytest.CaptureFixture[str]
) -> None:
    root, service = kept
    program = root / "server.py"
    works = program.read_text()
    program.write_text("raise SystemExit('no such store')")
    psutil.Process(listening(service.port)).parent().kill()  # type: ignore[union-attr]
    limits.until(lambda: "mlflow" not in keeper.processes(root), "failed start")
    program.write_text(works)
    start(root, service)
    assert listening(service.port)
    capfd.readouterr()
    assert main(["stop"]) == 0
    assert capfd.readouterr().out == "mlflow: stopped\n"


UI = """
from pathlib import Path
from flows.serve import __main__ as serve
from flows.serve.services import Service
serve.mlflow = lambda root: Service("mlflow", ("server",), "http://127.0.0.1", lambda: True, {port})
serve.store.client = lambda root: None
serve._retrainings = lambda root, server: ""
raise SystemExit(serve.main(["ui"]))
"""


@fault(
    "`make ui` is killed, or its terminal is closed",
    keeps="the port: MLflow's server ends with it",
    then="`make ui` and `make serve` start as ever",
)
def test_the_ui_is_killed(tmp_path: Path) -> None:
    port = ports.free()[0]
    (tmp_path / "server.py").write_text(SERVER.format(port=port))
    path = {"PYTHONPATH": f"{tmp_path}{os.pathsep}{workspace.ROOT}"}
    env = workspace.environment(tmp_path) | path
    for number in (signal.SIGKILL, signal.SIGHUP):
        words = [sys.executable, "-c", UI.format(port=port)]
        ui = subprocess.Popen(words, cwd=tmp_path, env=env, stdout=subprocess.DEVNULL)
        limits.until(lambda: listening(port), "server")
        ui.send_signal(number)
        assert ui.wait(limits.STEP_S) != 0
        workspace.all_end(tmp_path, limits.ORPHANS_S)
