"""Prefect server, worker and MLflow server on this machine, for scheduled retraining without
anything set up before.

    # what `make serve` does: start, deploy infra/prefect.yaml, print the addresses
    python -m flows.serve.services start
    # `make serve-stop`: end all of them and what they started
    python -m flows.serve.services stop
    python -m flows.serve.services status
    python -m flows.serve.services ui        # `make ui`: only the MLflow server, in the foreground

They listen on loopback: ADAPT_PREFECT_PORT (4200), ADAPT_MLFLOW_PORT (5000). What is configured
elsewhere is used and not started: with PREFECT_API_URL set there is no server of ours, with an http
MLFLOW_TRACKING_URI no MLflow server. Process ids and logs are in the state folder, under
`services/`.
"""

import argparse
import base64
import json
import os
import socket
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path

import psutil

from adapt import environment
from adapt.params import InputError
from adapt.tracking import store
from flows.process import environment as child_environment
from flows.process import stream
from flows.serve import daemons
from flows.serve.daemons import Service, launch, running, wait

POOL = "local"
DEPLOYMENTS = "infra/prefect.yaml"


def services(root: Path) -> list[Service]:
    """What runs here, in the order in which it is started."""
    found = []
    if not os.environ.get("PREFECT_API_URL"):
        found.append(_prefect_server(_port("ADAPT_PREFECT_PORT", 4200)))
    if not store.uri(root).startswith("http"):
        found.append(_mlflow_server(root, _port("ADAPT_MLFLOW_PORT", 5000)))
    return [*found, _prefect_worker(prefect_api())]


def _prefect_server(port: int) -> Service:
    command = (
        sys.executable,
        "-m",
        "prefect",
        "server",
        "start",
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
    )
    return Service(
        name="prefect-server",
        command=command,
        address=f"http://127.0.0.1:{port}",
        port=port,
        variable="ADAPT_PREFECT_PORT",
        answers=lambda: _get(f"http://127.0.0.1:{port}/api/health") is not None,
    )


def _mlflow_server(root: Path, port: int) -> Service:
    return Service(
        name="mlflow",
        command=mlflow_command(root, port),
        address=f"http://127.0.0.1:{port}",
        port=port,
        variable="ADAPT_MLFLOW_PORT",
        answers=lambda: _get(f"http://127.0.0.1:{port}/health") is not None,
    )


def _prefect_worker(api: str) -> Service:
    """It makes its work pool itself when there is none."""
    name = f"adapt-{socket.gethostname()}"
    command = (
        sys.executable,
        "-m",
        "prefect",
        "worker",
        "start",
        "--pool",
        POOL,
        "--type",
        "process",
        "--name",
        name,
    )
    return Service(
        name="prefect-worker",
        command=command,
        address=f"pool {POOL} of {api}",
        port=None,
        variable="",
        answers=lambda: _online(api, name),
    )


def _online(api: str, name: str) -> bool:
    answer = _get(f"{api}/work_pools/{POOL}/workers/filter", {}, _credentials())
    workers = json.loads(answer) if answer else []
    return any(worker["name"] == name and worker["status"] == "ONLINE" for worker in workers)


def _credentials() -> dict[str, str]:
    """The header that Prefect's own client sends to a server with a key or a password."""
    if key := os.environ.get("PREFECT_API_KEY"):
        return {"Authorization": f"Bearer {key}"}
    if words := os.environ.get("PREFECT_API_AUTH_STRING"):
        return {"Authorization": f"Basic {base64.b64encode(words.encode()).decode()}"}
    return {}


def mlflow_command(root: Path, port: int) -> tuple[str, ...]:
    """An MLflow server over the store that retrainings without a server write to."""
    artifacts = environment.state_dir(root) / "mlflow" / "artifacts"
    return (
        sys.executable,
        "-m",
        "mlflow",
        "server",
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
        "--workers",
        "1",
        "--backend-store-uri",
        store.uri(root),
        "--artifacts-destination",
        str(artifacts),
    )


def prefect_api() -> str:
    """The API that worker and deployment talk to: the configured one, or that of our own server."""
    return (
        os.environ.get("PREFECT_API_URL")
        or f"http://127.0.0.1:{_port('ADAPT_PREFECT_PORT', 4200)}/api"
    )


def start(root: Path) -> None:
    """Start what does not run yet, wait until it answers, deploy the schedules. Leaves nothing
    behind when it fails.
    """
    if not (root / DEPLOYMENTS).is_file():
        raise InputError(f"{root}: no {DEPLOYMENTS} here; run from the project's root")
    wanted = services(root)
    missing = [service for service in wanted if running(root, service.name) is None]
    for service in missing:
        if service.port is not None and not _free(service.port):
            raise InputError(
                f"port {service.port} for {service.name} is taken; stop what uses it or set {service.variable}"
            )
    env = child_environment({"PREFECT_API_URL": prefect_api(), "PREFECT_CLI_PROMPT": "false"})
    store.client(root)  # two processes that make an sqlite store at the same time both fail
    started = []
    try:
        for service in wanted:
            if service in missing:
                launch(root, service, {**env, "ADAPT_ROOT": str(root)})
                started.append(service.name)
                wait(root, service)
            print(
                f"{service.name}: {'started' if service in missing else 'runs already'}, {service.address}",
                flush=True,
            )
        deploy(root, env)
    except BaseException:
        stop(root, started)
        raise


def deploy(root: Path, env: dict[str, str]) -> None:
    """Hand the deployments and schedules of infra/prefect.yaml to the server."""
    command = (
        sys.executable,
        "-m",
        "prefect",
        "--no-prompt",
        "deploy",
        "--all",
        "--prefect-file",
        DEPLOYMENTS,
    )
    code, last = stream(command, cwd=root, env=env, emit=lambda _: None)
    if code:
        raise InputError(f"prefect deploy: {' '.join(last[-3:])}")
    print(
        f"deployed {DEPLOYMENTS}; schedules: {prefect_api().removesuffix('/api')}/deployments",
        flush=True,
    )


def stop(root: Path, names: Sequence[str] | None = None) -> None:
    """End the services (all, or those of `names`) and everything they have started, the worker
    first.
    """
    known = daemons.known(root)
    order = [name for name in ("prefect-worker", "prefect-server", "mlflow") if name in known]
    for name in order:
        if names is not None and name not in names:
            continue
        worker = running(root, name) if name == "prefect-worker" else None
        if worker:
            end_runs(worker.pid)
        print(
            f"{name}: {'stopped' if daemons.stop(root, name) else 'did not run any more'}",
            flush=True,
        )
    if not order and names is None:
        print("nothing runs")


def end_runs(worker: int) -> None:
    """Let the retrainings of a worker end first: told to stop, it would give them no time to close
    what they opened.

    The worker is halted meanwhile, and wakes up to find that it must stop: it would start the next
    scheduled one.
    """
    process = psutil.Process(worker)
    process.suspend()
    runs = process.children()
    for run in runs:
        print("prefect-worker: a retraining is under way and is stopped", flush=True)
        run.terminate()
    deadline = time.monotonic() + daemons.GRACE
    while any(_works(run) for run in runs) and time.monotonic() < deadline:
        time.sleep(0.2)
    process.terminate()
    process.resume()


def _works(process: psutil.Process) -> bool:
    """Whether it is alive; a halted parent leaves its dead children as zombies."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def status(root: Path) -> int:
    """Print what runs; the exit code is 0 when everything does."""
    wanted = services(root)
    up = 0
    for service in wanted:
        found = running(root, service.name)
        works = found is not None and service.answers()
        up += works
        state = (
            "does not run"
            if found is None
            else f"process {found.pid}, {'' if works else 'does not answer, '}"
        )
        print(f"{service.name}: {state}{found.address if found else ''}")
    return 0 if up == len(wanted) else 1


def ui(root: Path) -> int:
    """The MLflow server alone, until Ctrl-C; or where it is, when one runs already."""
    address = store.uri(root)
    found = running(root, "mlflow")
    if address.startswith("http") or found:
        print(f"MLflow: {found.address if found else store.without_credentials(address)}")
        return 0
    port = _port("ADAPT_MLFLOW_PORT", 5000)
    if not _free(port):
        raise InputError(f"port {port} is taken; stop what uses it or set ADAPT_MLFLOW_PORT")
    store.client(root)
    print(f"MLflow: http://127.0.0.1:{port} (Ctrl-C ends it)", flush=True)
    os.execve(sys.executable, mlflow_command(root, port), child_environment({}))


def _port(variable: str, default: int) -> int:
    text = os.environ.get(variable, str(default))
    if not text.isdecimal() or not 0 < int(text) < 65536:
        raise InputError(f"{variable}: expected a port number, got {text!r}")
    return int(text)


def _free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def _get(url: str, body: object = None, headers: Mapping[str, str] | None = None) -> bytes | None:
    """The answer of a service, None while there is none (also when it answers with an error)."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(
        url, data, {"Content-Type": "application/json", **(headers or {})}
    )
    try:
        with urllib.request.urlopen(request, timeout=5) as response:
            return bytes(response.read())
    except (urllib.error.URLError, TimeoutError, ConnectionError):
        return None


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; exit code 2 for a user's mistake such as a port that is taken."""
    parser = argparse.ArgumentParser(
        prog="python -m flows.serve.services",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("what", choices=("start", "stop", "status", "ui"))
    what = parser.parse_args(arguments).what
    root = Path.cwd()
    try:
        if what == "status":
            return status(root)
        if what == "ui":
            return ui(root)
        (start if what == "start" else stop)(root)
    except InputError as error:
        print(f"services: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
