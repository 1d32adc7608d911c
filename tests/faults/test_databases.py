"""Servers' databases and ports that are not to be had when the services start."""

import socket
from pathlib import Path

import pytest

from flows.serve.__main__ import main
from tests.support import ports, workspace
from tests.support.faults import fault

SECRET = "hunter2/@"


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A workspace that could start its services."""
    for name in ("PREFECT_API_URL", "MLFLOW_TRACKING_URI", "ADAPT_ALERT_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("ADAPT_STATE", str(tmp_path / ".state"))
    for name in ("ADAPT_PREFECT_PORT", "ADAPT_MLFLOW_PORT"):
        monkeypatch.setenv(name, str(ports.free()[0]))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "infra").mkdir()
    (tmp_path / "infra" / "prefect.yaml").touch()
    return tmp_path


def refused(root: Path, capfd: pytest.CaptureFixture[str]) -> str:
    """The one line in which the start is refused at once; nothing runs afterwards."""
    assert main(["start"]) == 2
    (line,) = capfd.readouterr().err.splitlines()
    assert "hunter2" not in line
    assert workspace.processes(root) == []
    return line


@fault(
    "Postgres of Prefect's server is away when the services start",
    keeps="everything; nothing is started",
    says="Prefect's database 127.0.0.1:5432: Connection refused; start it, or unset ...",
    then="`make serve` starts all once it is back",
)
def test_prefects_database_is_away(
    root: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    port = ports.free()[0]
    url = f"postgresql+asyncpg://me:hunter2%2F%40@127.0.0.1:{port}/prefect"
    said = (
        f"serve: Prefect's database 127.0.0.1:{port}: Connection refused; "
        "start it, or unset PREFECT_SERVER_DATABASE_*"
    )
    with monkeypatch.context() as given:
        given.setenv("PREFECT_SERVER_DATABASE_CONNECTION_URL", url)
        assert refused(root, capfd) == said
    monkeypatch.setenv("PREFECT_SERVER_DATABASE_HOST", "127.0.0.1")
    monkeypatch.setenv("PREFECT_SERVER_DATABASE_PORT", str(port))
    monkeypatch.setenv("PREFECT_SERVER_DATABASE_PASSWORD", SECRET)
    assert refused(root, capfd) == said


@fault(
    "Postgres of MLflow is away when the services start",
    keeps="everything; nothing is started",
    says="MLflow store postgresql://127.0.0.1/mlflow cannot be used: Connection refused",
    then="`make serve` starts all once it is back",
)
def test_mlflows_database_is_away(
    root: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("psycopg2", reason="MLflow on Postgres needs the extra `postgres`")
    port = ports.free()[0]
    address = f"postgresql+psycopg2://me:hunter2@127.0.0.1:{port}/mlflow"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    shown = f"postgresql+psycopg2://127.0.0.1:{port}/mlflow"
    said = f"serve: MLflow store {shown} cannot be used: Connection refused"
    assert refused(root, capfd) == said


@fault(
    "the port of a service is taken by another program",
    keeps="everything; nothing is started",
    says="port 5000 for mlflow is taken; stop what uses it or set ADAPT_MLFLOW_PORT",
    then="`make serve` starts all on another port, or once it is free",
)
def test_a_port_is_taken(
    root: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        monkeypatch.setenv("ADAPT_MLFLOW_PORT", str(port))
        remedy = "stop what uses it or set ADAPT_MLFLOW_PORT"
        assert refused(root, capfd) == f"serve: port {port} for mlflow is taken; {remedy}"
