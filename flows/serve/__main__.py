"""Prefect server, worker and MLflow server on this machine: scheduled retraining without a setup.

    python -m flows.serve start     # `make serve`: start, deploy the schedules, print addresses
    python -m flows.serve stop      # `make serve-stop`: end all of them and what they started
    python -m flows.serve status
    python -m flows.serve ui        # `make ui`: only the MLflow server, in the foreground
    python -m flows.serve alarm     # send a test message to ADAPT_ALERT_URL

They listen on loopback: ADAPT_PREFECT_PORT (4200), ADAPT_MLFLOW_PORT (5000). What is configured
elsewhere is used and not started: with PREFECT_API_URL set there is no server of ours, with an http
MLFLOW_TRACKING_URI no MLflow server. Configuration and logs are in the state folder, under
`services/`.
"""

import socket
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from types import ModuleType

from adapt import addresses, command, environment, params
from adapt.names import one_line
from adapt.params import InputError
from adapt.tracking import experiment, store
from adapt.tracking.presentation import retrainings_page
from flows import reaper, remotes
from flows.process import child_environment, stream
from flows.serve import guard, keeper
from flows.serve.services import Service, mlflow, prefect_api, require_database, services

DEPLOYMENTS = "infra/prefect.yaml"


def start(root: Path) -> None:
    """Start what does not run, wait for it, deploy the schedules; leaves nothing if that fails."""
    # 1. Refuse what cannot work before anything is started.
    if not (root / DEPLOYMENTS).is_file():
        raise InputError(f"{root}: no {DEPLOYMENTS} here; run from the project's root")
    _alarms().check()
    wanted, live = services(root), keeper.processes(root)
    missing = [service for service in wanted if service.name not in live]
    for service in missing:
        guard.end_predecessor(root, service.name)
        _require_free(service)
    if "prefect-server" in [service.name for service in missing]:
        require_database()
    # 2. Make MLflow's store: two processes that make an SQLite store at the same time both fail.
    store.client(root)
    for note in remotes.verify(root):
        print(one_line(note), flush=True)
    # 3. Start one after the other: the worker needs the server.
    own = {"PREFECT_API_URL": prefect_api(), "PREFECT_CLI_PROMPT": "false", "ADAPT_ROOT": str(root)}
    env = child_environment(own)
    keeper.configure(root, missing)
    try:
        for service in wanted:
            state, address = "runs already", live.get(service.name, {}).get("address")
            if service in missing:
                keeper.bring_up(root, service, env)
                state, address = "started", service.address
            print(one_line(f"{service.name}: {state}, {address}"), flush=True)
        # 4. Hand over the schedules, also when all runs already: the file may have been edited.
        deploy(root, env)
    except BaseException:
        keeper.stop(root, [service.name for service in missing])
        raise


def deploy(root: Path, env: dict[str, str]) -> None:
    """Hand the deployments and schedules of infra/prefect.yaml to the server."""
    words = f"-m prefect --no-prompt deploy --all --prefect-file {DEPLOYMENTS}".split()
    with environment.announced(f"waiting for Prefect's server to take {DEPLOYMENTS}"):
        code, last = stream([sys.executable, *words], cwd=root, env=env, emit=lambda _: None)
    if code:
        raise InputError(f"prefect deploy: {' '.join(last[-3:])}")
    address = prefect_api().removesuffix("/api")
    print(one_line(f"deployed {DEPLOYMENTS}; schedules: {address}/deployments"), flush=True)
    print(one_line(_alarms().deploy(root, prefect_api())), flush=True)


def alarm(root: Path) -> None:
    """Send a test message to whom ADAPT_ALERT_URL names."""
    print(one_line(_alarms().send_test(root, prefect_api())))


def _alarms() -> ModuleType:
    # Imported here: it takes a second, and stopping needs none of it.
    from flows.serve import alarms

    return alarms


def status(root: Path) -> int:
    """Print what runs; the exit code is 0 when everything does."""
    live, failed = keeper.processes(root), 0
    for service in services(root):
        info = live.get(service.name)
        works = info is not None and service.answers()
        failed += not works
        silent = "" if works else "does not answer, "
        state = f"process {info['pid']}, {silent}{info['address']}" if info else "does not run"
        print(one_line(f"{service.name}: {state}"))
    return 1 if failed else 0


def ui(root: Path) -> int:
    """The MLflow server alone, until Ctrl-C; or where it is, when one runs already."""
    uri, live = store.uri(root), keeper.processes(root).get("mlflow")
    if live or uri.startswith("http"):
        print(one_line(f"MLflow: {live['address'] if live else addresses.shown(uri)}"))
        return 0
    service = mlflow(root)
    _require_free(service)
    store.client(root)
    print(one_line(f"MLflow: {service.address} (Ctrl-C ends it)"), flush=True)
    print(one_line(f"retrainings: {_retrainings(root, service.address)}"), flush=True)
    reaper.watch()
    command, emit = [sys.executable, "-m", *service.command], partial(print, flush=True)
    return stream(command, cwd=root, env=child_environment({}), emit=emit)[0]


def _retrainings(root: Path, server: str) -> str:
    """The page with a line for each retraining, the main figures first."""
    config = params.load(params.read(root / "params.yaml"), "tracking", store.TrackingConfig)
    kept = store.Store(root, config)
    experiment.describe(kept)
    return f"{server}/{retrainings_page(kept.experiment_id)}"


def _require_free(service: Service) -> None:
    try:
        if service.port:
            socket.create_server(("127.0.0.1", service.port)).close()
    except OSError:
        problem = f"is taken; stop what uses it or set {service.variable}"
        raise InputError(f"port {service.port} for {service.name} {problem}") from None


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; exit code 2 for a user's mistake such as a port that is taken."""
    parser = environment.parser("flows.serve", __doc__)
    actions = {"start": start, "stop": keeper.stop, "status": status, "ui": ui, "alarm": alarm}
    parser.add_argument("action", choices=actions)
    action = actions[parser.parse_args(arguments).action]

    def work() -> int | None:
        with environment.terminable():
            return action(Path.cwd())

    return command.ended("serve", work, stopped="")


if __name__ == "__main__":
    raise SystemExit(main())
