"""The name of a run: when, why, and from which data ("2026-11-26 nightly, data 3f2a1c").

It is the same in Prefect and in MLflow. Which data it is from is known once stage `data` is up to
date, so that a run may get the end of its name later.
"""

from datetime import UTC, datetime
from pathlib import Path

from prefect.client.orchestration import get_client
from prefect.runtime import deployment, flow_run

from adapt.tracking import lineage
from flows import plan
from flows.prefect_api import only_told
from flows.promote.hand import person

DATA, DIGITS = "results/data/splits", 6


def of_run(root: Path, todo: plan.Plan | None, reason: str, settled: bool = False) -> str:
    """The name as far as it is known; `settled` when stage `data` is up to date."""
    day, why = f"{datetime.now(UTC):%Y-%m-%d}", reason or "retraining"
    known = settled or (todo is not None and "data" not in todo.due)
    version = data_version(root) if known else ""
    return f"{day} {why}, data {version}" if version and "data " not in why else f"{day} {why}"


def data_version(root: Path) -> str:
    """The first digits of DVC's hash of the splits; "" before there are any."""
    return lineage.output_hash(root, DATA)[:DIGITS]


def rename(name: str) -> None:
    """Give the flow run its whole name; a server that is gone does not stop a retraining."""
    if not flow_run.id or flow_run.name == name:
        return
    with only_told(), get_client(sync_client=True) as client:
        client.update_flow_run(flow_run.id, name=name)


def who() -> str:
    """Who lets the champion move: a deployment by its name, or the person at the command line."""
    with only_told():  # the name of a deployment is asked of the server
        if name := deployment.name:
            return f"deployment {name}"
    return person()
