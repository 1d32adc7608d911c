"""Runs in MLflow: one per stage, and one per retraining as their parent, with what one compares.

A stage that runs as a command gets its run from `stage_run`; `ADAPT_PARENT_RUN` in the environment
makes it a child of a retraining. Who drives a whole retraining calls `start_retraining`, then
`finish_retraining` or `fail_retraining`.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from adapt import environment, params
from adapt.params import InputError, Settings
from adapt.tracking.lineage import revision, stage_hash
from adapt.tracking.results import RunWriter, Texts, prefix
from adapt.tracking.store import StepLogger, Store

ENVIRONMENT_TAGS = {"ADAPT_FLOW_RUN": "adapt.flow_run", "DVC_EXP_NAME": "dvc.exp_name"}


@dataclass(frozen=True)
class StageRun:
    """The open run of a stage."""

    stage: str
    writer: RunWriter
    log_step: StepLogger

    def log_results(self, folder: Path) -> None:
        """Log what the stage has left in its results folder."""
        self.writer.stage(self.stage, folder)


@contextmanager
def stage_run(
    store: Store, stage: str, config: Settings, name: str = "", parent: str = ""
) -> Iterator[StageRun]:
    """The MLflow run around one stage, below `parent` or the run that `ADAPT_PARENT_RUN` names.

    Called `name`, or as the stage. Ends as FINISHED, FAILED or, after Ctrl-C or a SIGTERM, KILLED.
    """
    tags = {"adapt.stage": stage, **_below(parent or os.environ.get("ADAPT_PARENT_RUN", ""))}
    parameters = params.flat(params.as_params(stage, config))
    writer = _create(store, name or stage, tags, parameters)
    try:
        # A flow ends a stage by SIGTERM, after which the run must not stay open for ever.
        with environment.terminable():
            yield StageRun(stage, writer, writer.logger(prefix(stage)))
    except (InputError, FloatingPointError) as error:
        # Only these messages are written for people, without a stranger's data in them.
        writer.end("FAILED", {"adapt.error": str(error)})
        raise
    except (KeyboardInterrupt, SystemExit):
        writer.end("KILLED")
        raise
    except BaseException:
        writer.end("FAILED")
        raise
    writer.end("FINISHED")


def start_retraining(store: Store, tags: Texts) -> str:
    """Open the run "retrain 7"; its id belongs into `ADAPT_PARENT_RUN` of the stages."""
    query, newest = "tags.`adapt.kind` = 'retraining'", ["attributes.start_time DESC"]
    earlier = store.client.search_runs([store.experiment_id], query, order_by=newest, max_results=1)
    number = int(earlier[0].data.tags.get("adapt.number", 0)) + 1 if earlier else 1
    own = {"adapt.kind": "retraining", "adapt.number": str(number)}
    return _create(store, f"retrain {number}", {**own, **tags}, _params(store)).run_id


def finish_retraining(store: Store, run_id: str, stages: Texts, tags: Texts) -> None:
    """Put what one compares between retrainings onto their run and close it.

    `stages` says of each whether it "ran" or was "cached" by DVC; `tags` are more, as the decision.
    """
    # 1. Every retraining has a run of each stage: one that did not run gets one from DVC's cache.
    children = _finished_children(store, run_id)
    hashes = {stage: stage_hash(store.root, stage) for stage in stages}
    for stage, how in stages.items():
        child = children.get(stage) or _run_from_folder(store, run_id, stage, how)
        # Only now: DVC writes its lock after the stage, and with it the stage's run, has ended.
        child.tag({"adapt.dvc_stage_hash": hashes[stage]})
    # 2. The main results once more in one place.
    writer = RunWriter(store.client, run_id)
    writer.retraining(store.root / "results")
    writer.datasets(store.root)
    lineage = {f"dvc.{stage}": known for stage, known in hashes.items()}
    lineage |= {f"adapt.{stage}": how for stage, how in stages.items()}
    writer.end("FINISHED", {**lineage, **tags})


def fail_retraining(store: Store, run_id: str, error: str, *, killed: bool = False) -> None:
    """Close the run of a retraining that was cut short; the reason is tag `adapt.error`."""
    RunWriter(store.client, run_id).end("KILLED" if killed else "FAILED", {"adapt.error": error})


def _finished_children(store: Store, parent: str) -> dict[str, RunWriter]:
    """The latest finished run of each stage under `parent`."""
    query = f"tags.`mlflow.parentRunId` = '{parent}' and attributes.status = 'FINISHED'"
    oldest = ["attributes.start_time ASC"]
    runs = store.client.search_runs([store.experiment_id], query, order_by=oldest)
    latest = {run.data.tags.get("adapt.stage"): run.info.run_id for run in runs}
    return {stage: RunWriter(store.client, run_id) for stage, run_id in latest.items() if stage}


def _run_from_folder(store: Store, parent: str, stage: str, how: str) -> RunWriter:
    """A finished run for a stage that did not run now, from its folder of results."""
    own = {key: text for key, text in _params(store).items() if key.startswith(f"{stage}.")}
    cached = {"adapt.cached": str(how == "cached").lower()}
    writer = _create(store, stage, {"adapt.stage": stage, **cached, **_below(parent)}, own)
    writer.stage(stage, store.root / "results" / stage)
    writer.end("FINISHED")
    return writer


def _create(store: Store, name: str, tags: Texts, parameters: Texts) -> RunWriter:
    run = store.client.create_run(store.experiment_id, run_name=name)
    writer = RunWriter(store.client, str(run.info.run_id))
    of_environment = {tag: os.environ.get(key, "") for key, tag in ENVIRONMENT_TAGS.items()}
    writer.tag({**revision(store.root), **of_environment, **tags})
    writer.parameters(parameters)
    return writer


def _params(store: Store) -> dict[str, str]:
    return params.flat(params.read(store.root / "params.yaml"))


def _below(parent: str) -> dict[str, str]:
    return {"mlflow.parentRunId": parent} if parent else {}
