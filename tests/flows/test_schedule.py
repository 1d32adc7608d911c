"""A real server and worker run the deployment on schedule, and nothing is left when they are
stopped.

The only test with the whole pipeline under Prefect's server; some minutes, because every stage is a
process that loads its libraries.
"""

import json
import sys
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from mlflow import MlflowClient

from tests.support import limits, ports, workspace

SECONDS = 15  # between scheduled runs


@dataclass(frozen=True)
class Deployed:
    """A workspace with its services running."""

    root: Path
    env: dict[str, str]
    output: str

    def services(self, action: str) -> str:
        python = [sys.executable, "-m", "flows.serve", action]
        return workspace.output(python, self.env, self.root, limits.COMMAND_S)

    def prefect(self, path: str, body: object) -> list[dict[str, Any]]:
        return list(_post(f"http://127.0.0.1:{self.env['ADAPT_PREFECT_PORT']}/api/{path}", body))

    def mlflow(self, path: str, body: object) -> dict[str, Any]:
        return dict(
            _post(f"http://127.0.0.1:{self.env['ADAPT_MLFLOW_PORT']}/api/2.0/mlflow/{path}", body)
        )

    def runs(self, *states: str) -> list[dict[str, Any]]:
        """Flow runs in one of these states, the first one first."""
        runs = self.prefect("flow_runs/filter", {"sort": "EXPECTED_START_TIME_ASC"})
        return [run for run in runs if run["state_type"] in states]


def _post(url: str, body: object) -> Any:
    request = urllib.request.Request(
        url, json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=limits.STEP_S) as response:
        return json.loads(response.read())


@pytest.fixture
def deployed(tmp_path: Path) -> Iterator[Deployed]:
    root = workspace.copy(tmp_path)
    # As shipped, but for when: in seconds rather than at night.
    path = root / "infra" / "prefect.yaml"
    content = yaml.safe_load(path.read_text())
    content["deployments"] = content["deployments"][:1]
    # One every few seconds: those whose time comes while one runs are turned away, or they pile up.
    content["deployments"][0]["concurrency_limit"] = {
        "limit": 1,
        "collision_strategy": "CANCEL_NEW",
    }
    content["deployments"][0]["schedules"] = [{"interval": SECONDS, "active": True, "slug": "soon"}]
    path.write_text(yaml.safe_dump(content))
    names = ("ADAPT_PREFECT_PORT", "ADAPT_MLFLOW_PORT")
    given = dict(zip(names, map(str, ports.free(2)), strict=True))
    here = Deployed(root, workspace.environment(root, given), "")
    try:
        yield Deployed(root, here.env, here.services("start"))
    finally:
        here.services("stop")


@pytest.mark.timeout(limits.WHOLE_TEST_S)
def test_a_schedule_fires_and_a_retraining_ends(deployed: Deployed) -> None:
    assert (
        f"prefect-server: started, http://127.0.0.1:{deployed.env['ADAPT_PREFECT_PORT']}"
        in deployed.output
    )
    assert "deployed infra/prefect.yaml" in deployed.output
    assert deployed.services("start").count("runs already") == 3
    deployed.services("status")

    run = limits.until(
        lambda: deployed.runs("COMPLETED", "FAILED", "CRASHED"),
        "ended retraining",
        limits.RETRAINING_S,
    )[0]
    log = "\n".join(
        line["message"] for line in deployed.prefect("logs/filter", {"sort": "TIMESTAMP_ASC"})
    )
    assert run["state"]["type"] == "COMPLETED", log
    assert run["state"]["message"] in (
        "adapt version 1 was promoted to champion",
        "adapt version 1 was not promoted",
    )
    assert run["auto_scheduled"]
    # Those whose time came while it ran were turned away.
    assert not [other for other in deployed.runs("FAILED", "CRASHED")]

    # MLflow's server shows what the retraining, which wrote to the store itself, has left.
    query: dict[str, Any] = {"experiment_ids": ["1"], "filter": "tags.`adapt.kind` = 'retraining'"}
    (tracked,) = limits.until(
        lambda: [
            run
            for run in deployed.mlflow("runs/search", query)["runs"]
            if run["info"]["status"] == "FINISHED"
        ],
        "finished run in MLflow",
    )
    assert {"key": "adapt.flow_run", "value": run["id"]} in tracked["data"]["tags"]

    # With nothing changed, the next one runs no stage.
    limits.until(
        lambda: [r for r in deployed.runs("COMPLETED") if r["state_name"] == "Unchanged"],
        "run without stages",
        limits.RETRAINING_S,
    )

    # Stopping in the middle of a stage ends that too.
    workspace.override(deployed.root / "params.yaml", {"seed": 8})
    limits.until(
        lambda: [p for p in workspace.processes(deployed.root) if "adapt.stages." in p],
        "running stage",
    )
    assert "a retraining is under way and is stopped" in deployed.services("stop")
    workspace.all_end(deployed.root)
    runs = MlflowClient(f"sqlite:///{deployed.root}/.state/mlflow/mlflow.db").search_runs(
        ["1"], query["filter"]
    )
    assert [r.info.status for r in runs] == ["KILLED", "FINISHED"]  # the latest first
    assert deployed.services("stop") == "nothing runs\n"
