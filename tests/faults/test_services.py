"""Prefect's server, MLflow's and the worker killed while they serve: one set of real services."""

from collections.abc import Callable, Iterator
from functools import partial

import psutil
import pytest
import requests

from flows.process import alive
from flows.serve import keeper
from tests.support import limits, quick, workspace
from tests.support.faults import fault
from tests.support.served import Served, served

pytestmark = [pytest.mark.slow, pytest.mark.timeout(limits.WHOLE_TEST_S)]
BACK_S = 120.0  # a server that was killed answers again: some 10 s on a quiet machine


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with served(tmp_path_factory.mktemp("served"), {}, {}) as started:
        yield started
    workspace.all_end(started.root)


def guard(here: Served, service: str) -> psutil.Process:
    """The guard that stands above a service."""
    return psutil.Process(keeper.processes(here.root)[service]["pid"])


def family(here: Served, service: str) -> list[psutil.Process]:
    """A service's processes, from the top: without the guard and its reaper."""
    below = guard(here, service).children(recursive=True)
    return [one for one in below if "flows.reaper" not in one.cmdline()]


def answers(here: Served, variable: str, path: str) -> Callable[[], bool]:
    def asked() -> bool:
        try:
            url = f"http://127.0.0.1:{here.env[variable]}{path}"
            return bool(requests.get(url, timeout=5).ok)
        except requests.RequestException:
            return False

    return asked


def retrained(here: Served) -> str:
    """The name of the state in which a retraining ends that a person starts now."""
    run = here.start("retrain/nightly", {"options": {"promote": True}})
    return str(here.state(run, "COMPLETED", "FAILED", "CRASHED", "CANCELLED")["name"])


def listening(processes: list[psutil.Process]) -> set[tuple[str, str]]:
    """Addresses and ports that these processes listen on."""
    return {
        (one.laddr.ip, str(one.laddr.port))
        for process in processes
        for one in process.net_connections("inet")
        if one.status == psutil.CONN_LISTEN
    }


def test_what_listens_is_what_the_table_says(here: Served) -> None:
    """The rows of infra/README.md for `make serve`; their ports are compared by tests/infra."""
    supervisord = psutil.Process(guard(here, "mlflow").ppid())
    worker = family(here, "prefect-worker")
    rest = set(supervisord.children(recursive=True)) - set(worker)
    ports = {here.env["ADAPT_PREFECT_PORT"], here.env["ADAPT_MLFLOW_PORT"]}
    assert listening([supervisord, *rest]) == {("127.0.0.1", port) for port in ports}
    assert {address for address, _ in listening(worker)} <= {"127.0.0.1"}


@fault(
    "MLflow's server is killed: the parent, then the child that has the port",
    keeps="all runs; the server answers again after seconds",
    then="it can be stopped and started as ever",
)
def test_mlflow_is_killed(here: Served) -> None:
    works = answers(here, "ADAPT_MLFLOW_PORT", "/health")
    for place in (0, -1):
        before = family(here, "mlflow")
        before[place].kill()
        limits.until(partial(gone, before), "end of all of it")
        limits.until(works, "MLflow again", BACK_S)
    here.command("flows.serve", "stop")
    assert not works() and workspace.processes(here.root) == []
    here.command("flows.serve", "start")
    assert works()


def gone(processes: list[psutil.Process]) -> bool:
    return not any(map(alive, processes))


@fault(
    "Prefect's server is killed while the services run",
    keeps="deployments, schedules and runs; the worker waits for it",
    then="the next retraining runs, with the same worker",
)
def test_prefects_server_is_killed(here: Served) -> None:
    worker = guard(here, "prefect-worker")
    for victim in family(here, "prefect-server"):
        victim.kill()
    limits.until(answers(here, "ADAPT_PREFECT_PORT", "/api/health"), "Prefect again", BACK_S)
    assert retrained(here) in ("Promoted", "Unchanged")
    assert guard(here, "prefect-worker") == worker


@fault(
    "the worker is killed in the middle of a retraining",
    keeps="what finished stages have made; the retraining ends, its runs are closed",
    says="Process ... exited / Crashed, in the list of runs",
    then="supervisord starts a worker, and the next retraining goes on from the last stage",
)
def test_the_worker_is_killed(here: Served) -> None:
    quick.going_on(here.root, "1")
    quick.tuned(here.root, 0.95)
    (here.root / "sleep.txt").write_text("100")
    run = here.start("retrain/nightly", {"options": {"promote": True}})
    here.state(run, "RUNNING")
    limits.until(lambda: [p for p in workspace.processes(here.root) if "quick_stage" in p], "stage")
    family(here, "prefect-worker")[0].kill()
    limits.until(
        lambda: not [p for p in workspace.processes(here.root) if "quick_stage" in p], "end of it"
    )
    (here.root / "sleep.txt").unlink()
    limits.until(lambda: "prefect-worker" in keeper.processes(here.root), "another worker")
    assert here.state(run, "CRASHED", "FAILED", "CANCELLED")
    assert retrained(here) == "Promoted"
