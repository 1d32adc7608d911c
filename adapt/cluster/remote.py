"""The job on the cluster (`adapt.cluster.submit`): fetch inputs, run a stage, publish its result.

It runs as `python -m adapt.cluster.remote train s3://bucket/prefix/jobs/<job>/job.json`.
"""

import hashlib
import importlib
import json
import os
import sys
from collections.abc import Mapping
from contextlib import chdir
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adapt import command, environment, names, params
from adapt.cluster import storage
from adapt.files import scratch
from adapt.params import InputError
from adapt.progress import Log, unlogged
from adapt.tracking.live import Live
from adapt.tracking.store import SQLITE

# What stages keep in the state folder by content, and bound themselves.
KEPT = ("answers", "debias", "pairs")
CURVES_S = 60.0  # how long the last points of a curve may take; the history has them all
SERVER_ADVICE = "start `mlflow server` and give its http address"


@dataclass(frozen=True, kw_only=True)
class StageJob:
    """What the cluster is told: plain values only, stored as JSON beside the result."""

    stage: str
    params: dict[str, Any]  # as in params.yaml: the stage's section and its shared ones
    inputs: dict[str, str]  # path below results/ -> URI
    outside: dict[str, str]  # folder beside it -> URI of what is in it (`luggage`)
    code: str  # digest of the sources that run
    logger: dict[str, str] | None  # arguments of Live

    @property
    def name(self) -> str:
        """What identifies the work: not where its curves go, and who asks for it."""
        content = [self.stage, self.params, self.inputs, self.outside, self.code]
        text = json.dumps(content, sort_keys=True).encode()
        return f"adapt-{self.stage}-{hashlib.sha256(text).hexdigest()[:16]}"


def prefix(stage: str) -> str:
    """What the line that tells of a user's mistake begins with, as on this machine."""
    return f"adapt {stage}: "


def main(stage: str, uri: str) -> None:
    """The stage's `run` between a fetch and a publish; exit code 2 for a user's mistake."""
    with environment.terminable():
        name = prefix(stage).removesuffix(": ")
        if code := command.ended(name, lambda: execute(stage, uri)):
            raise SystemExit(code)


def execute(stage: str, uri: str) -> None:
    """Run the stage that the description at `uri` asks for, and publish its result beside it."""
    folder = uri.rpartition("/")[0]
    with storage.named(uri):
        if storage.is_complete(folder):  # another job ended between the question and this one
            print(names.one_line(f"{folder}: the result is there already"), flush=True)
            return
    with scratch("adapt-job-") as workspace:
        results, out = workspace / "results", workspace / "results" / stage
        out.mkdir(parents=True)
        _lay_state(workspace)
        with storage.named(uri):
            job = _arrive(stage, uri, workspace)
        log = _open_logger(job.logger)
        module = importlib.import_module(f"adapt.stages.{stage}")
        config = params.load(job.params, stage, module.Config)
        # Paths of the settings are relative to the workspace, as at home.
        with chdir(workspace):
            metrics = module.run(config, results, out, log)
        if isinstance(log, Live):
            log.close(CURVES_S)
        storage.publish(out, folder, {"metrics": metrics})
        storage.remove(f"{folder}/checkpoints")


def _lay_state(workspace: Path) -> None:
    """Let answers and pairs outlive this job, on the disk of its node.

    A job that was cut off leaves them to the next one there, and one with some rows to one with
    more.
    """
    state = environment.state_dir(workspace)
    state.mkdir(exist_ok=True, parents=True)
    for name in KEPT:
        kept = storage.cache() / "state" / name
        kept.mkdir(exist_ok=True, parents=True)
        if not (state / name).exists():
            (state / name).symlink_to(kept)


def _arrive(stage: str, uri: str, workspace: Path) -> StageJob:
    """Read the description, and lay its inputs out as they lie in the user's workspace."""
    try:
        content = storage.read_json(uri)
    except FileNotFoundError:
        raise InputError(f"{uri}: not visible on the cluster; {storage.ADVICE}") from None
    job = _checked(stage, uri, content)
    for name, source in job.inputs.items():
        _link(names.below(workspace / "results", name), storage.fetch(source))
    for folder, source in job.outside.items():
        names.below(workspace, folder).mkdir(parents=True, exist_ok=True)
        # One by one: a folder may hold another one's, which are shared apart.
        for name, file in storage.files_of(storage.fetch(source)).items() if source else ():
            _link(names.below(workspace, f"{folder}/{name}"), file)
    return job


def _link(link: Path, target: Path) -> None:
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(target)


def _checked(stage: str, uri: str, content: Mapping[str, Any]) -> StageJob:
    """The description, if it is the one whose name this job was started with."""
    try:
        job = StageJob(**content)
        is_ours = uri.split("/")[-2] == job.name and job.stage == stage
    except (TypeError, ValueError, IndexError):
        is_ours = False
    if not is_ours:
        raise InputError(f"{uri}: is not what was submitted; somebody has changed it")
    return job


def _open_logger(arguments: Mapping[str, str] | None) -> Log:
    # The address is the one that this job was started with; the storage's is only the run's.
    uri = os.environ.get("MLFLOW_TRACKING_URI", "")
    if arguments is None or not uri:
        return unlogged
    is_here = not uri.startswith(SQLITE) or Path(uri.removeprefix(SQLITE)).exists()
    problem = f"{uri} is not visible on the cluster, which needs a tracking server: {SERVER_ADVICE}"
    params.require(is_here, "MLFLOW_TRACKING_URI", problem)
    return Live(uri, str(arguments.get("run_id")), str(arguments.get("prefix")))


if __name__ == "__main__":
    # By name, so that nothing that is pickled for workers belongs to __main__.
    importlib.import_module("adapt.cluster.remote").main(*sys.argv[1:])
