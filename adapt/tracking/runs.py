"""Runs in MLflow: one per stage, and one per retraining as their parent, with everything one
compares between two.

A stage that runs as a command gets its run from `stage_run`; `ADAPT_PARENT_RUN` in the environment
makes it a child of a retraining. Who drives a whole retraining calls `start_retraining`, then
`finish_retraining` or `fail_retraining`. Where the store is: `adapt.tracking.store`; what is taken
from a results folder: `adapt.record`; models: `adapt.tracking.registry`.
"""

import dataclasses
import os
import signal
import subprocess
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from adapt import params
from adapt.params import InputError
from adapt.tracking import results
from adapt.tracking.store import (
    StepLogger,
    TrackingConfig,
    client,
    experiment,
    uri,
    without_credentials,
)

if TYPE_CHECKING:
    from mlflow import MlflowClient

__all__ = [
    "StageRun",
    "StepLogger",
    "TrackingConfig",
    "client",
    "experiment",
    "fail_retraining",
    "finish_retraining",
    "revision",
    "stage_run",
    "start_retraining",
    "tag_stage_hash",
    "uri",
]

LIMIT = 100  # parameters or tags in one request, MLflow's limit
ENVIRONMENT_TAGS = {"ADAPT_FLOW_RUN": "adapt.flow_run", "DVC_EXP_NAME": "dvc.exp_name"}


class Verdict(Protocol):
    """What a decision about promotion looks like from here; `adapt.evaluation.gate.Decision` is
    one.
    """

    @property
    def promote(self) -> bool: ...

    @property
    def reasons(self) -> tuple[str, ...]: ...


@dataclasses.dataclass(frozen=True)
class StageRun:
    """The open run of a stage."""

    stage: str
    run_id: str
    log_step: StepLogger
    store: "MlflowClient"

    def log_results(self, stage_dir: Path) -> None:
        """Log what the stage has left in its results folder."""
        results.stage_results(self.store, self.log_step.uri, self.run_id, self.stage, stage_dir)


@contextmanager
def stage_run(
    stage: str, config: Any, tracking: TrackingConfig, root: Path, name: str | None = None
) -> Iterator[StageRun]:
    """The MLflow run around one stage (called `name`, or as the stage); ends as FINISHED, FAILED
    or, after Ctrl-C or a SIGTERM, KILLED.
    """
    store = client(root)
    tags = {"adapt.stage": stage, **_parent_tag()}
    run_id = _create(
        store,
        experiment(store, tracking, root),
        root,
        name or stage,
        tags,
        params.flat(params.as_params(stage, config)),
    )
    try:
        with _sigterm_raises():
            yield StageRun(
                stage, run_id, StepLogger(uri(root), run_id, results.prefix(stage)), store
            )
    except (
        InputError,
        FloatingPointError,
    ) as error:  # messages written for people, without a stranger's data in them
        _tag(store, run_id, {"adapt.error": str(error)})
        store.set_terminated(run_id, "FAILED")
        raise
    except (KeyboardInterrupt, SystemExit):
        store.set_terminated(run_id, "KILLED")
        raise
    except BaseException:
        store.set_terminated(run_id, "FAILED")
        raise
    store.set_terminated(run_id, "FINISHED")


@contextmanager
def _sigterm_raises() -> Iterator[None]:
    """Turn SIGTERM, with which a flow ends a stage, into an exception, so that the run does not
    stay open for ever.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, frame: Any) -> None:
        raise SystemExit(128 + number)

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def start_retraining(root: Path, tracking: TrackingConfig, tags: Mapping[str, str]) -> str:
    """Open the run of a whole retraining, "retrain 7"; its id belongs into `ADAPT_PARENT_RUN` of
    the stages.
    """
    store = client(root)
    experiment_id = experiment(store, tracking, root)
    query, newest = "tags.`adapt.kind` = 'retraining'", ["attributes.start_time DESC"]
    before = store.search_runs([experiment_id], query, order_by=newest, max_results=1)
    number = int(before[0].data.tags.get("adapt.number", 0)) + 1 if before else 1
    own = {"adapt.kind": "retraining", "adapt.number": str(number)}
    parameters = params.flat(params.read(root / "params.yaml"))
    return _create(store, experiment_id, root, f"retrain {number}", {**own, **tags}, parameters)


def finish_retraining(
    root: Path,
    run_id: str,
    folder: Path,
    decision: Verdict | None,
    stages: Mapping[str, str],
    tags: Mapping[str, str] | None = None,
) -> None:
    """Put what one compares between retrainings onto their run and close it.

    `stages` says for each stage whether it "ran" or was "cached" by DVC. A stage without a finished
    run of its own gets one from its results folder, so that every retraining has a run of each
    stage. `decision` is None when there was nothing to decide. `tags` are further ones, such as the
    registered version.
    """
    store = client(root)
    children = _finished_children(store, run_id)
    for stage, how in stages.items():
        if stage not in children:
            children[stage] = _run_from_folder(root, run_id, stage, how, folder / stage)
        tag_stage_hash(root, children[stage], stage)
    results.retraining_results(store, uri(root), run_id, folder)
    results.datasets(store, run_id, root)
    known = {f"dvc.{stage}": results.stage_hash(root, stage) for stage in stages}
    known |= {f"adapt.{stage}": how for stage, how in stages.items()}
    _tag(store, run_id, {**known, **(decision_tags(decision) if decision else {}), **(tags or {})})
    store.set_terminated(run_id, "FINISHED")


def decision_tags(decision: Verdict) -> dict[str, str]:
    """The gate's decision as tags; the note is what the UI shows as the run's description."""
    heading = "**Promoted**" if decision.promote else "**Not promoted**"
    return {
        "adapt.promoted": str(decision.promote).lower(),
        "adapt.reasons": "\n".join(decision.reasons),
        "mlflow.note.content": "\n".join(
            [heading, "", *(f"* {reason}" for reason in decision.reasons)]
        ),
    }


def fail_retraining(root: Path, run_id: str, error: str, *, killed: bool = False) -> None:
    """Close the run of a retraining that did not come to its end, with the reason as tag
    `adapt.error`.
    """
    store = client(root)
    _tag(store, run_id, {"adapt.error": error})
    store.set_terminated(run_id, "KILLED" if killed else "FAILED")


def tag_stage_hash(root: Path, run_id: str, stage: str) -> None:
    """Tag a stage's run with the hash of its `dvc.lock` entry, which DVC writes only after the
    stage has ended.
    """
    _tag(client(root), run_id, {"adapt.dvc_stage_hash": results.stage_hash(root, stage)})


def _finished_children(store: "MlflowClient", parent: str) -> dict[str, str]:
    """Stage to id of its latest finished run under `parent`."""
    experiment_id = store.get_run(parent).info.experiment_id
    query = f"tags.`mlflow.parentRunId` = '{parent}' and attributes.status = 'FINISHED'"
    runs = store.search_runs([experiment_id], query, order_by=["attributes.start_time ASC"])
    return {
        run.data.tags["adapt.stage"]: run.info.run_id
        for run in runs
        if "adapt.stage" in run.data.tags
    }


def _run_from_folder(root: Path, parent: str, stage: str, how: str, folder: Path) -> str:
    """A finished run for a stage that did not run now, from the results that DVC took from its
    cache.
    """
    store = client(root)
    experiment_id = store.get_run(parent).info.experiment_id
    own = {
        k: v
        for k, v in params.flat(params.read(root / "params.yaml")).items()
        if k.startswith(f"{stage}.")
    }
    tags = {
        "adapt.stage": stage,
        "adapt.cached": str(how == "cached").lower(),
        **_parent_tag(parent),
    }
    run_id = _create(store, experiment_id, root, stage, tags, own)
    results.stage_results(store, uri(root), run_id, stage, folder)
    store.set_terminated(run_id, "FINISHED")
    return run_id


def _create(
    store: "MlflowClient",
    experiment_id: str,
    root: Path,
    name: str,
    tags: Mapping[str, str],
    parameters: Mapping[str, str],
) -> str:
    from mlflow.entities import Param

    run_id = str(store.create_run(experiment_id, run_name=name).info.run_id)
    environment_tags = {
        tag: os.environ[key] for key, tag in ENVIRONMENT_TAGS.items() if os.environ.get(key)
    }
    _tag(store, run_id, {**revision(root), **environment_tags, **tags})
    listed = [Param(key, without_credentials(value)) for key, value in parameters.items()]
    for start in range(0, len(listed), LIMIT):
        store.log_batch(run_id, params=listed[start : start + LIMIT])
    return run_id


def _tag(store: "MlflowClient", run_id: str, tags: Mapping[str, str]) -> None:
    """Set the tags that have a value, without the passwords that an address in them may carry."""
    from mlflow.entities import RunTag

    listed = [
        RunTag(key, without_credentials(str(value))[:5000])
        for key, value in tags.items()
        if value != ""
    ]
    store.log_batch(run_id, tags=listed)


def _parent_tag(parent: str | None = None) -> dict[str, str]:
    parent = parent or os.environ.get("ADAPT_PARENT_RUN")
    return {"mlflow.parentRunId": parent} if parent else {}


def revision(root: Path) -> dict[str, str]:
    """Tags for the state of the code: the commit, and whether files differ from it; empty outside a
    git repository.
    """
    try:
        commit = _git(root, "rev-parse", "HEAD")
        # What a reproduction itself writes is no change of the code.
        changed = _git(root, "status", "--short", "--", ".", ":!results", ":!dvc.lock")
        return {"mlflow.source.git.commit": commit, "adapt.git_dirty": str(bool(changed)).lower()}
    except (
        FileNotFoundError,
        subprocess.CalledProcessError,
    ):  # no git, no repository, or nothing committed yet
        return {}


def _git(root: Path, *words: str) -> str:
    return subprocess.run(
        ["git", *words], cwd=root, capture_output=True, text=True, check=True
    ).stdout.strip()
