"""Runs in MLflow: one per stage, and one per retraining as their parent, with what one compares.

A stage that runs as a command gets its run from `stage_run`; `ADAPT_PARENT_RUN` in the environment
makes it a child of a retraining. Who drives a whole retraining calls `start_retraining`, then
`finish_retraining` or `fail_retraining`. All of them write into journals (`adapt.tracking.journal`)
and wait for nobody; the sender brings that to MLflow. Ids here are those of journals, except what
`recorded` returns.
"""

import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from adapt import addresses, environment, names, params
from adapt.params import InputError, Settings
from adapt.tracking import journal, results, sender
from adapt.tracking.journal import Journal
from adapt.tracking.lineage import datasets, revision, stage_hash
from adapt.tracking.results import Texts, prefix
from adapt.tracking.steps import StepLogger
from adapt.tracking.store import Store, label, run_of, uri

ENVIRONMENT_TAGS = {"ADAPT_FLOW_RUN": "adapt.flow_run", "DVC_EXP_NAME": "dvc.exp_name"}
POLL_S, WAKE_S = 0.1, 5.0  # how often to look for an answer, and to let the sender ask again


class Unreachable(InputError):
    """MLflow has to be asked, and does not answer."""


@dataclass(frozen=True)
class StageRun:
    """The open run of a stage."""

    stage: str
    journal: Journal
    log_step: StepLogger

    @property
    def run_id(self) -> str:
        """Its id, to be the parent of other runs."""
        return self.journal.id

    def log_results(self, folder: Path) -> None:
        """Record what the stage has left in its results folder."""
        self.journal.keep(f"stage.{self.stage}", results.files(folder))

    def log_metrics(self, values: Mapping[str, float]) -> None:
        """Record single values under their whole names."""
        self.journal.write("metrics", values={key: float(v) for key, v in values.items()})

    def log_files(self, name: str, files: Mapping[str, Path]) -> None:
        """Record files as artifacts; `name` tells one such collection from the others."""
        self.journal.keep(f"artifacts.{name}", files)

    def tag(self, tags: Texts) -> None:
        """Record tags."""
        self.journal.write("tags", tags=_shown(tags))


@contextmanager
def stage_run(
    store: Store, stage: str, config: Settings, name: str = "", parent: str = ""
) -> Iterator[StageRun]:
    """The run around one stage, below `parent` or the run that `ADAPT_PARENT_RUN` names.

    Called `name`, or as the stage. Ends as FINISHED, FAILED or, after Ctrl-C or a SIGTERM, KILLED.
    """
    parent = parent or os.environ.get("ADAPT_PARENT_RUN", "")
    parameters = params.flat(params.as_params(stage, config))
    run = _create(store, name or stage, {"adapt.stage": stage}, parameters, parent)
    log = StepLogger(run.folder, prefix(stage), uri(store.root))
    try:
        # A flow ends a stage by SIGTERM, after which the run must not stay open for ever.
        with environment.terminable():
            yield StageRun(stage, run, log)
    except (InputError, FloatingPointError) as error:
        # Only these messages are written for people, without a stranger's data in them.
        run.end("FAILED", _shown({"adapt.error": str(error)}))
        raise
    except (KeyboardInterrupt, SystemExit):
        run.end("KILLED")
        raise
    except BaseException:
        run.end("FAILED")
        raise
    finally:
        log.close()
        sender.start(store.root)
    run.end("FINISHED")
    _tell_parent(store, parent, stage, run.id)


def start_retraining(store: Store, name: str, tags: Texts) -> str:
    """Open the run of a retraining; its id belongs into `ADAPT_PARENT_RUN` of the stages."""
    return _create(store, name, {"adapt.kind": "retraining", **tags}, _params(store)).id


def finish_retraining(store: Store, run_id: str, stages: Texts, tags: Texts) -> None:
    """Put what one compares between retrainings onto their run and close it.

    `stages` says of each whether it "ran" or was "cached" by DVC; `tags` are more, as the decision.
    """
    run = journal.find(store.root, run_id)
    if run is None:
        return  # the disk was full when it began, which was told then
    # 1. Every retraining has a run of each stage: one that did not run gets one from DVC's cache.
    children = {e["stage"]: e["of"] for e in journal.entries(run.folder) if e["kind"] == "child"}
    hashes = {stage: stage_hash(store.root, stage) for stage in stages}
    for stage, how in stages.items():
        child = children.get(stage) or _run_from_folder(store, run_id, stage, how)
        # Only now: DVC writes its lock after the stage, and with it the stage's run, has ended.
        run.write("tags", of=child, tags={"adapt.dvc_stage_hash": hashes[stage]})
    # 2. The main results once more in one place.
    run.keep("retraining", results.files_of_retraining(store.root / "results"))
    run.write("datasets", datasets=datasets(store.root))
    lineage = {f"dvc.{stage}": known for stage, known in hashes.items()}
    lineage |= {f"adapt.{stage}": how for stage, how in stages.items()}
    _end(store, run, "FINISHED", {**lineage, **tags})


def fail_retraining(store: Store, run_id: str, error: str, *, killed: bool = False) -> None:
    """Close the run of a retraining that was cut short; the reason is tag `adapt.error`."""
    if run := journal.find(store.root, run_id):
        _end(store, run, "KILLED" if killed else "FAILED", {"adapt.error": error})


def recorded(store: Store, run_id: str, seconds: float = 60.0) -> str:
    """MLflow's id of the run of a journal, once the sender has made it; `Unreachable` else."""
    sender.start(store.root)
    deadline, asked = time.monotonic() + seconds, -WAKE_S
    folder = journal.home(store.root) / run_id
    while journal.find(store.root, run_id) and folder.exists():
        if time.monotonic() - asked > WAKE_S:
            sender.wake(store.root)
            asked = time.monotonic()
        if found := journal.sent(folder).get("run_id"):
            return str(found)
        if time.monotonic() > deadline:
            address = addresses.shown(uri(store.root))
            problem = sender.last_trouble(store.root) or "it has not answered yet"
            raise Unreachable(f"MLflow at {address} cannot be asked: {problem}")
        time.sleep(POLL_S)
    return _known(store, run_id)


def _known(store: Store, run_id: str) -> str:
    """The run of a journal that is sent, and no longer there."""
    found = run_of(store, run_id)
    if found is None:
        raise Unreachable(f"MLflow at {addresses.shown(uri(store.root))} has no run {run_id}")
    return found


def _tell_parent(store: Store, parent: str, stage: str, run_id: str) -> None:
    """Note in the journal of the retraining which run its stage has had, if there is one."""
    if above := journal.find(store.root, parent):
        above.write("child", stage=stage, of=run_id)


def _run_from_folder(store: Store, parent: str, stage: str, how: str) -> str:
    """A finished run for a stage that did not run now, from its folder of results."""
    own = {key: text for key, text in _params(store).items() if key.startswith(f"{stage}.")}
    cached = {"adapt.cached": str(how == "cached").lower()}
    run = _create(store, stage, {"adapt.stage": stage, **cached}, own, parent)
    run.keep(f"stage.{stage}", results.files(store.root / "results" / stage))
    run.end("FINISHED")
    return run.id


def _create(store: Store, name: str, tags: Texts, parameters: Texts, parent: str = "") -> Journal:
    """A journal that begins with all that is known of a run, and somebody who sends it."""
    of_environment = {tag: os.environ.get(key, "") for key, tag in ENVIRONMENT_TAGS.items()}
    run = journal.create(
        store.root,
        name=names.one_line(name, 250),
        store=label(),
        experiment=store.config.experiment,
        parent=parent,
        tags=_shown({**revision(store.root), **of_environment, **tags}),
        params={key: names.tag(text) for key, text in parameters.items()},
    )
    sender.start(store.root)
    return run


def _end(store: Store, run: Journal, status: str, tags: Texts) -> None:
    run.end(status, _shown(tags))
    sender.start(store.root)


def _shown(texts: Texts) -> dict[str, str]:
    """Those that have a value, without passwords of addresses and what does not print."""
    return {key: names.tag(str(text)) for key, text in texts.items() if str(text)}


def _params(store: Store) -> dict[str, str]:
    return params.flat(params.read(store.root / "params.yaml"))
