"""The job on the cluster (`adapt.cluster.submit`): fetch inputs, run a stage, publish its result.

It runs as `python -m adapt.cluster.remote train s3://bucket/prefix/jobs/<job>/job.json`.
"""

import importlib
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adapt import environment, params
from adapt.cluster import storage
from adapt.params import InputError
from adapt.progress import Log, unlogged
from adapt.tracking.store import SQLITE, StepLogger

SERVER_ADVICE = "start `mlflow server` and give its http address"


@dataclass(frozen=True, kw_only=True)
class StageJob:
    """What the cluster is told: plain values only, stored as JSON beside the result."""

    stage: str
    params: dict[str, Any]  # as in params.yaml: the stage's section and its shared ones
    inputs: dict[str, str]  # path below results/ -> URI
    logger: dict[str, str] | None  # arguments of StepLogger


def prefix(stage: str) -> str:
    """What the line that tells of a user's mistake begins with, as on this machine."""
    return f"adapt {stage}: "


def main(stage: str, uri: str) -> None:
    """The stage's `run` between a fetch and a publish; exit code 2 for a user's mistake."""
    with environment.terminable():
        try:
            execute(stage, uri)
        except InputError as error:
            print(f"{prefix(stage)}{error}", file=sys.stderr, flush=True)
            raise SystemExit(2) from None


def execute(stage: str, uri: str) -> None:
    """Run the stage that the description at `uri` asks for, and publish its result beside it."""
    with tempfile.TemporaryDirectory(prefix=f"adapt-{stage}-") as scratch:
        results, out = Path(scratch, "results"), Path(scratch, "results", stage)
        out.mkdir(parents=True)
        with storage.named(uri):
            job = _arrive(uri, results)
        log = _open_logger(job.logger)
        module = importlib.import_module(f"adapt.stages.{stage}")
        metrics = module.run(params.load(job.params, stage, module.Config), results, out, log)
        storage.publish(out, uri.rpartition("/")[0], {"metrics": metrics})


def _arrive(uri: str, results: Path) -> StageJob:
    """Read the description, and lay its inputs out below `results` as they lie in the workspace."""
    try:
        job = StageJob(**storage.read_json(uri))
    except FileNotFoundError:
        raise InputError(f"{uri}: not visible on the cluster; {storage.ADVICE}") from None
    for name, source in job.inputs.items():
        link = results / name
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(storage.fetch(source))
    return job


def _open_logger(arguments: Mapping[str, str] | None) -> Log:
    if arguments is None:
        return unlogged
    uri = arguments["uri"]
    is_here = not uri.startswith(SQLITE) or Path(uri.removeprefix(SQLITE)).exists()
    problem = f"{uri} is not visible on the cluster, which needs a tracking server: {SERVER_ADVICE}"
    params.require(is_here, "MLFLOW_TRACKING_URI", problem)
    return StepLogger(uri, arguments["run_id"], arguments["prefix"])


if __name__ == "__main__":
    # By name, so that nothing that is pickled for workers belongs to __main__.
    importlib.import_module("adapt.cluster.remote").main(*sys.argv[1:])
