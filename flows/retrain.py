"""Retrain: bring every stage up to date, register the model, and promote it if the gate agrees.

    python -m flows.retrain              # what `make run` does
    python -m flows.retrain --dry-run    # say what would run
    python -m flows.retrain --help

DVC decides which stages run; this decides when one is retried, stopped or refused. Nothing has to
be started before: without PREFECT_API_URL, Prefect brings a temporary server along, and if nothing
has changed not even that. The same flow is what `infra/prefect.yaml` schedules.
"""

import logging
import os
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil
from prefect import flow, task
from prefect.cache_policies import NO_CACHE
from prefect.client.orchestration import get_client
from prefect.exceptions import TerminationSignal
from prefect.logging import get_run_logger
from prefect.runtime import flow_run
from prefect.settings import PREFECT_API_URL, get_current_settings, temporary_settings
from prefect.states import Completed, Failed, State
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from adapt import environment
from adapt.params import Content, InputError
from adapt.tracking import runs
from adapt.tracking.store import Store, without_credentials
from flows import plan, process, promote, report, tasks
from flows.serve import keeper

MINUTE = 60.0


class Retraining(BaseModel):
    """What can be said about one retraining; what it computes is said in params.yaml."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    force: bool = False
    """run every stage, also those whose inputs have not changed"""
    dry_run: bool = False
    """say what would run and why, and stop"""
    promote: bool = True
    """let the champion move when the gate agrees"""
    timeout_minutes: int = Field(default=1440, ge=1, le=20160)
    """stop a stage, with all its processes, when it takes longer"""


@flow(name="retrain", flow_run_name="retrain", validate_parameters=True)
def retrain(options: Retraining = Retraining()) -> State[Any]:  # noqa: B008 (frozen)
    """Bring the pipeline in the working folder up to date and let the gate decide on the result."""
    root = Path.cwd()
    try:
        with plan.exclusive(root):
            todo = plan.make(root, options.force)
            previous = nothing_to_do(root, todo, options)
            if options.dry_run:
                return Completed(message=" ".join(outlook(todo, previous)))
            if previous:
                return Completed(name="Unchanged", message="nothing changed, no stage ran")
            return carry_out(root, todo, options)
    except InputError as error:
        return Failed(name="InputError", message=str(error))


def carry_out(root: Path, todo: plan.Plan, options: Retraining) -> State[Any]:
    """Run what is due inside one MLflow run, then promote, then report."""
    # 1. Open the run, of which the stages make theirs children.
    store, tags = todo.store, {"adapt.flow_run": str(flow_run.id or "")}
    run_id = runs.start_retraining(store, tags)
    own = {"ADAPT_PARENT_RUN": run_id, "ADAPT_FLOW_RUN": tags["adapt.flow_run"]}
    env = process.child_environment(own)
    try:
        # 2. Run what is due. A stage that fails ends the retraining; finished ones are kept.
        stages, failure = run_stages(root, todo, env, options.timeout_minutes * MINUTE)
        if failure:
            runs.fail_retraining(store, run_id, failure.message or "")
            return failure
        # 3. Ask the gate, and put on the run what one compares between retrainings.
        promotion = promote_task(store, todo.config, run_id, options.promote)
        cached = {k: "cached" if took == "unchanged" else "ran" for k, took in stages.items()}
        runs.finish_retraining(store, run_id, cached, promotion.run_tags())
    # A run must not stay open for ever, whatever ends the retraining.
    except Exception as error:
        runs.fail_retraining(store, run_id, f"{type(error).__name__}: {error}")
        raise
    except BaseException as error:  # Ctrl-C, cancellation, SIGTERM
        runs.fail_retraining(store, run_id, f"stopped ({type(error).__name__})", killed=True)
        raise
    # 4. Keep the result for the table at the end, and for a retraining with nothing to do.
    seconds = time.time() - psutil.Process().create_time()
    finished = f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC"
    question = plan.question(store, todo.config, options.promote)
    ending = report.Ending(store.config.model, promotion, stages, seconds, finished, question)
    report.save(root, ending)
    report.artifact(ending)
    return Completed(message=promotion.sentence(store.config.model))


def run_stages(
    root: Path, todo: plan.Plan, env: dict[str, str], timeout_seconds: float
) -> tuple[dict[str, str], State[Any] | None]:
    """Run what is due, a task each; returns durations (or "unchanged") by stage, and a failure."""
    log = get_run_logger()
    for note in todo.notes:
        log.info(note)
    log.info(f"due: {', '.join(todo.due) or 'no stage'}")
    outcomes = dict.fromkeys(todo.stages, "unchanged")
    for stage in todo.due:
        run = tasks.task_for(stage, timeout_seconds)
        state = run(root, stage, env, stage in todo.forced, return_state=True)
        if not state.is_completed():
            # A user's mistake keeps its name, and the stage is named.
            name = state.name if state.name in ("InputError", "Busy") else "Failed"
            message = state.message or ""
            message = message if stage in message else f"{stage}: {message}"
            return outcomes, Failed(name=name, message=message)
        outcome = state.result()
        if outcome.kind == "ran":
            outcomes[stage] = report.duration(outcome.seconds)
    return outcomes, None


@task(name="promote", task_run_name="promote", cache_policy=NO_CACHE)
def promote_task(store: Store, config: Content, run_id: str, move: bool) -> promote.Promotion:
    """Register the tuned model and let the gate decide."""
    promotion = promote.promote(store, config, run_id, move)
    log = get_run_logger()
    for line in (promotion.sentence(store.config.model), *promotion.reasons):
        log.info(line)
    return promotion


def nothing_to_do(root: Path, todo: plan.Plan, options: Retraining) -> report.Ending | None:
    """The last ending, if no stage is out of date and the gate's question would be the same."""
    previous = None if todo.due else report.last(root)
    if previous and previous.question == plan.question(todo.store, todo.config, options.promote):
        return previous
    return None


def outlook(todo: plan.Plan, previous: report.Ending | None) -> list[str]:
    """What a retraining would do, in sentences."""
    if previous:
        return ["Nothing has changed; no stage would run."]
    unchanged = ", ".join(stage for stage in todo.stages if stage not in todo.due) or "none"
    due, ending = ", ".join(todo.due) or "no stage", "Then the gate decides on the result."
    notes = [f"{note}." for note in todo.notes]
    return [*notes, f"Would run: {due}.", f"Unchanged: {unchanged}.", ending]


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; exit code 0 also for a refusal by the gate, 2 for a user's mistake."""
    options = parse(arguments)
    try:
        with environment.terminable():
            return run(Path.cwd(), options)
    except InputError as error:
        print(f"retrain: {error}", file=sys.stderr)
        return 2
    except (KeyboardInterrupt, TerminationSignal, SystemExit):
        kept = "finished stages are kept, the next retraining goes on from there"
        print(f"retrain: stopped; {kept}", file=sys.stderr)
        return 130


def run(root: Path, options: Retraining) -> int:
    """One retraining from the command line, its result on the screen; returns the exit code."""
    # 1. Find out what is due.
    with plan.exclusive(root):
        todo = plan.make(root, options.force)
        previous = nothing_to_do(root, todo, options)
    if options.dry_run:
        print("\n".join(outlook(todo, previous)))
        return 0
    # 2. If nothing is, there is no flow run either: starting Prefect's server to record that takes
    #    longer than finding it out. A scheduled retraining has one, and ends it as "Unchanged".
    if previous:
        print(f"Nothing has changed since {previous.finished}; no stage ran. The last result:")
        report.show(root, previous)
        return 0
    # 3. The flow locks and plans again: another retraining may have come between.
    with prefect_here(root):
        state = retrain(options, return_state=True)
    # 4. The table comes last on the screen: Prefect would still say that its server has ended.
    logging.getLogger("prefect").setLevel(logging.WARNING)
    ending = report.last(root)
    if state.is_completed() and ending:
        report.show(root, ending)
        return 0
    print(f"retrain: {state.message}", file=sys.stderr)
    return 2 if state.name == "InputError" else 1


@contextmanager
def prefect_here(root: Path) -> Iterator[None]:
    """Use the server that is configured, or that of `make serve`, or else start a temporary one."""
    if address := os.environ.get("PREFECT_API_URL"):
        require_answer(address)
        yield
    elif server := keeper.processes(root).get("prefect-server"):
        # A temporary one would share its database.
        with temporary_settings({PREFECT_API_URL: f"{server['address']}/api"}):
            yield
    else:
        limit = get_current_settings().server.ephemeral.startup_timeout_seconds
        wait = f"starting Prefect's temporary server; up to {limit} s on a busy machine"
        with environment.announced(f"retrain: {wait}"):
            try:
                get_client(sync_client=True)  # the flow finds it running then
            except (RuntimeError, ValueError) as error:
                raise InputError(str(error)) from None
        yield


def require_answer(address: str) -> None:
    """InputError where no Prefect server answers at PREFECT_API_URL, instead of its traceback."""
    with get_client(sync_client=True) as client:
        failure = client.api_healthcheck()
    if failure is not None:
        reason = str(failure).partition("\n")[0] or type(failure).__name__
        problem = f"no Prefect server answers at {without_credentials(address)} ({reason})"
        advice = "start it, or unset the variable to have a temporary one"
        raise InputError(f"PREFECT_API_URL: {problem}; {advice}")


def parse(arguments: Sequence[str] | None) -> Retraining:
    """`Retraining` from the command line: its fields are the options, its descriptions the help."""
    done = "0 done (a refusal by the gate is a normal ending)"
    codes = f"exit code: {done}, 1 a stage failed, 2 a mistake in what you gave, 130 stopped"
    parser = environment.parser("flows.retrain", __doc__, epilog=codes)
    add = parser.add_argument
    for name, field in Retraining.model_fields.items():
        flag, text, default = name.replace("_", "-"), field.description, field.default
        if default is True:
            add(f"--no-{flag}", dest=name, action="store_false", help=f"do not {text}")
        elif default is False:
            add(f"--{flag}", action="store_true", help=text)
        else:
            text = f"{text} (default: {default})"
            add(f"--{flag}", type=int, default=default, help=text, metavar="N")
    given = vars(parser.parse_args(arguments))
    try:
        return Retraining(**given)
    except ValidationError as error:
        problem = error.errors()[0]
        parser.error(f"--{str(problem['loc'][0]).replace('_', '-')}: {problem['msg']}")


if __name__ == "__main__":
    raise SystemExit(main())
