"""One retraining from its plan to its end: the stages that are due, the gate, what is kept of it.

All of it lies inside one run of the tracking, of which the runs of the stages are children.
However it ends, that run is closed and the end is an `Ended` in words; what finished stages have
made stays, and the next retraining goes on from there.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from prefect import Task, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import TaskRun
from prefect.logging import get_run_logger
from prefect.runtime import flow_run
from prefect.states import Failed, State

from adapt import command
from adapt.environment import BUSY_DELAY_S, BUSY_TRIES
from adapt.names import one_line
from adapt.params import Content, InputError
from adapt.registry import registry
from adapt.registry.away import RegistryAway
from adapt.report import keeping
from adapt.tracking import lineage, runs
from adapt.tracking.presentation import Origin
from adapt.tracking.store import Store
from flows import links, plan, process, remotes, report, run_names, tasks
from flows.away import LATER, asking
from flows.endings import ENDINGS, FAILURES, Ended, Failure, Success
from flows.options import Retraining
from flows.prefect_api import only_told
from flows.promote import deciding
from flows.promote.ending import Promotion
from flows.turn import Turn

RECORDED_S = 10.0  # the sender has made the run of a retraining long before its end
REPORTED_S = 30.0  # it has closed the run some seconds after that


@dataclass
class Course:
    """A retraining under way: what it is to do, how its stages ended, when it began."""

    root: Path
    todo: plan.Plan
    options: Retraining
    turn: Turn
    name: str
    run_id: str = ""
    outcomes: dict[str, str] = field(default_factory=dict)
    started: float = field(default_factory=time.monotonic)

    def end(
        self, kind: Success | Failure, message: str, promotion: Promotion | None = None
    ) -> Ended:
        """How it ended, with where to look; MLflow is asked where it has answered before."""
        run_id, page = _where(self.todo.store, self.run_id) if promotion else ("", "")
        return Ended(
            kind=kind,
            message=message,
            name=self.name,
            run_id=run_id,
            page=page,
            flow_run=str(flow_run.id or ""),
            promotion=promotion,
        )

    def settle(self) -> None:
        """Give the run the end of its name, now that it is known which data it is from."""
        self.name = run_names.of_run(self.root, self.todo, self.options.reason, settled=True)
        run_names.rename(self.name)


def _where(store: Store, run_id: str) -> tuple[str, str]:
    """MLflow's id of a run, and its page; empty when MLflow has gone away by now."""
    try:
        with asking(store):
            known = runs.recorded(store, run_id, RECORDED_S)
            return known, links.run_page(store, known)
    except RegistryAway:
        return "", ""


def carry_out(root: Path, todo: plan.Plan, options: Retraining, turn: Turn) -> Ended:
    """Run what is due inside one tracked run, then promote, then report."""
    course = Course(root, todo, options, turn, run_names.of_run(root, todo, options.reason))
    # 1. Open the run, of which the stages make theirs children.
    flow = {"adapt.flow_run": str(flow_run.id or ""), "adapt.flow_url": links.flow_page()}
    tags = {**flow, "adapt.reason": options.reason}
    course.run_id = runs.start_retraining(todo.store, course.name, tags)
    try:
        # 2. Run what is due. A stage that fails ends the retraining; finished ones are kept.
        ending = run_stages(course)
        if ending is None:
            # 3. Ask the gate, and put on the run what one compares between retrainings.
            course.settle()
            ending = left_out(course) if todo.left else decide(course)
        if ending.failed:
            runs.fail_retraining(todo.store, course.run_id, ending.message)
        return ending
    # A run must not stay open for ever, whatever ends the retraining.
    except Exception as error:
        reason = command.explained(error) or f"{type(error).__name__}: {error}"
        runs.fail_retraining(todo.store, course.run_id, reason)
        raise
    except BaseException as error:  # Ctrl-C, cancellation, SIGTERM
        reason = f"stopped ({type(error).__name__})"
        runs.fail_retraining(todo.store, course.run_id, reason, killed=True)
        raise


def run_stages(course: Course) -> Ended | None:
    """Run what is due, a task each; notes durations (or "unchanged"), returns a failure."""
    todo, log = course.todo, get_run_logger()
    own = {"ADAPT_PARENT_RUN": course.run_id, "ADAPT_FLOW_RUN": str(flow_run.id or "")}
    env = process.child_environment(own)
    for note in [*todo.notes, *remotes.verify(course.root)]:
        log.info(one_line(note))
    log.info(one_line(f"due: {', '.join(todo.due) or 'no stage'}"))
    course.outcomes = dict.fromkeys(todo.stages, "unchanged")
    for number, stage in enumerate(todo.due, start=1):
        course.turn.doing(f"at stage {stage}, {number} of {len(todo.due)}")
        run = tasks.task_for(stage, course.options.timeout_seconds)
        state = run(course.root, stage, env, stage in todo.forced, return_state=True)
        if not state.is_completed():
            return _failed(course, stage, state.name or "", state.message or "")
        outcome = state.result()
        if outcome.kind == "ran":
            course.outcomes[stage] = report.duration(outcome.seconds)
    return None


def _failed(course: Course, stage: str, name: str, message: str) -> Ended:
    """A user's mistake keeps its name, and the stage is named."""
    kinds: Mapping[str, Failure] = {k: k for k in FAILURES}
    is_named = stage in message or name == "RegistryAway"
    message = message if is_named else f"{stage}: {message}"
    return course.end(kinds.get(name, "Failed"), message)


def left_out(course: Course) -> Ended:
    """The end where other stages are due, which this retraining was not to run."""
    left, store = ", ".join(course.todo.left), course.todo.store
    runs.finish_retraining(store, course.run_id, {}, {"mlflow.runName": course.name})
    return course.end("Partial", f"what was asked for is up to date; due and left out: {left}")


def decide(course: Course) -> Ended:
    """Ask the gate about the result, close the run, and keep the end for the next retraining."""
    todo, options, store = course.todo, course.options, course.todo.store
    course.turn.doing("asking the gate")
    ask = promote_task.with_options(timeout_seconds=options.timeout_seconds)
    who = run_names.who()
    state = ask(store, todo.config, course.run_id, options.promote, who, return_state=True)
    if not state.is_completed():
        return _failed(course, "promote", state.name or "", state.message or "")
    promotion: Promotion = state.result()
    cached = {k: "cached" if took == "unchanged" else "ran" for k, took in course.outcomes.items()}
    told = promotion.run_tags(store.config.model, _origin(course.root))
    tags = {"mlflow.runName": course.name, **told}
    runs.finish_retraining(store, course.run_id, cached, tags)
    message = promotion.sentence(store.config.model)
    ended = course.end(ENDINGS[promotion.ending], message, promotion)
    _keep(course, promotion, ended.page)
    if ended.run_id and (problem := keeping.keep(store, course.run_id, REPORTED_S)):
        get_run_logger().info(
            one_line(f"no report yet: {problem}; `python -m adapt.report last` makes it")
        )
    return ended


def _origin(root: Path) -> Origin:
    """Where the result comes from, for the description of its run."""
    code = lineage.revision(root)
    return Origin(
        data=lineage.output_hash(root, run_names.DATA),
        revision=code.get("mlflow.source.git.commit", ""),
        is_dirty=code.get("adapt.git_dirty") == "true",
        weights=lineage.output_hash(root, registry.MODEL),
        flow=links.flow_page(),
    )


def _keep(course: Course, promotion: Promotion, page: str) -> None:
    """Keep the result for the table at the end, and for a retraining with nothing to do."""
    store, seconds = course.todo.store, time.monotonic() - course.started
    finished = f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC"
    try:
        question = plan.question(store, course.todo.config, course.options.promote)
    except RegistryAway:  # it was decided all the same; the next one asks anew
        question = {}
    stages, model = course.outcomes, store.config.model
    kept = report.Ending(model, promotion, stages, seconds, finished, question)
    try:
        report.save(course.root, kept)
    except OSError as error:
        get_run_logger().warning(one_line(f"this result is not kept: {command.advice(error)}"))
    with only_told():
        report.artifact(kept, page)


def worth_asking_again(_task: "Task[Any, Any]", run: TaskRun, state: State[Any]) -> bool:
    """A registry that is started anew answers soon; asking twice makes no second version."""
    return state.name == "RegistryAway" and run.run_count < BUSY_TRIES


@task(
    name="promote",
    task_run_name="promote",
    cache_policy=NO_CACHE,
    retries=BUSY_TRIES,
    retry_delay_seconds=BUSY_DELAY_S,
    retry_condition_fn=worth_asking_again,
)
def promote_task(
    store: Store, config: Content, run_id: str, move: bool, who: str
) -> Promotion | State[Promotion]:
    """Register the tuned model and let the gate decide; a failure is a state with one line."""
    try:
        with asking(store):
            promotion = deciding.promote(store, config, run_id, move, who)
    except RegistryAway as error:
        return Failed(name="RegistryAway", message=f"{error}; {LATER}")
    except InputError as error:
        return Failed(name="InputError", message=str(error))
    log = get_run_logger()
    for line in (promotion.sentence(store.config.model), *promotion.reasons):
        log.info(one_line(line))
    return promotion
