"""What runs for scheduled retraining: one declaration for each service."""

import os
import socket
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from adapt import addresses, environment
from adapt.params import InputError
from adapt.tracking import store

POOL = "local"
ANSWER_S = 5  # a server on this machine or near it answers
NAMES = ("prefect-server", "mlflow", "prefect-worker")
PREFECT, MLFLOW = ("ADAPT_PREFECT_PORT", 4200), ("ADAPT_MLFLOW_PORT", 5000)


@dataclass(frozen=True)
class Service:
    """A process to keep: `python -m command`, where it is, whether it works, what sets its port."""

    name: str
    command: tuple[str, ...]
    address: str
    answers: Callable[[], bool]
    port: int | None = None
    variable: str = ""


def services(root: Path) -> list[Service]:
    """What runs here, in the order in which it is started."""
    servers = [] if os.environ.get("PREFECT_API_URL") else [prefect()]
    if not store.uri(root).startswith("http"):
        servers.append(mlflow(root))
    return [*servers, worker(prefect_api())]


def prefect() -> Service:
    """Prefect's server, which starts a retraining when its time has come."""
    return _server("prefect-server", "prefect server start", *PREFECT, health="/api/health")


def mlflow(root: Path) -> Service:
    """An MLflow server over the store that retrainings without a server write to."""
    artifacts = str(environment.state_dir(root) / "mlflow" / "artifacts")
    over = ("--backend-store-uri", store.uri(root), "--artifacts-destination", artifacts)
    return _server("mlflow", "mlflow server --workers 1", *MLFLOW, *over, health="/health")


def worker(api: str) -> Service:
    """What runs the retrainings. It makes its work pool itself when there is none."""
    name = f"adapt-{socket.gethostname()}"
    start = (*f"prefect worker start --type process --pool {POOL} --name".split(), name)
    return Service("prefect-worker", start, f"pool {POOL} of {api}", lambda: _online(api, name))


def require_database() -> None:
    """`InputError` where Prefect's server is to keep its runs in a Postgres that is away."""
    given = addresses.given("PREFECT_SERVER_DATABASE_CONNECTION_URL")
    parts = urllib.parse.urlsplit(given)
    host = parts.hostname or os.environ.get("PREFECT_SERVER_DATABASE_HOST")
    if not host or parts.scheme.startswith("sqlite"):
        return
    port = parts.port or int(os.environ.get("PREFECT_SERVER_DATABASE_PORT") or 5432)
    try:
        socket.create_connection((host, port), timeout=ANSWER_S).close()
    except OSError as error:
        remedy = "start it, or unset PREFECT_SERVER_DATABASE_*"
        reason = error.strerror or "no answer"
        raise InputError(f"Prefect's database {host}:{port}: {reason}; {remedy}") from None


def prefect_api() -> str:
    """The API that worker and deployment talk to: the configured one, or that of our own server."""
    return os.environ.get("PREFECT_API_URL") or f"{prefect().address}/api"


def _server(name: str, start: str, key: str, default: int, *options: str, health: str) -> Service:
    text = os.environ.get(key, str(default))
    if not text.isdecimal() or not 0 < int(text) < 65536:
        raise InputError(f"{key}: expected a port number, got {text!r}")
    address, port = f"http://127.0.0.1:{int(text)}", int(text)
    command = (*start.split(), "--host", "127.0.0.1", "--port", text, *options)
    return Service(name, command, address, lambda: _responds(address + health), port, key)


def _responds(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=ANSWER_S):
            return True
    except (urllib.error.URLError, TimeoutError, ConnectionError):
        return False


def _online(api: str, name: str) -> bool:
    # Imported here: it takes a second, and stopping needs none of it.
    from httpx import HTTPError
    from prefect.client.orchestration import get_client
    from prefect.exceptions import ObjectNotFound
    from prefect.settings import PREFECT_API_URL, temporary_settings

    with temporary_settings({PREFECT_API_URL: api}), get_client(sync_client=True) as client:
        try:
            workers = client.read_workers_for_work_pool(POOL)
        except (HTTPError, ObjectNotFound):
            return False
    return any(worker.name == name and worker.status == "ONLINE" for worker in workers)
