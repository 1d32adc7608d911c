"""DVC's stages as Prefect tasks: DVC says which, in which order and what is due; a task runs one.

No stage, edge or order is written here. `order` reads the graph that `dvc repro` uses, `changed`
asks `dvc status`, and `reproduce` is `dvc repro --single-item STAGE` in a process of its own, its
output in the run's log line by line. Here is when a stage is skipped, retried or stopped.
"""

import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any, Literal

from prefect import Task, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import TaskRun
from prefect.logging import get_run_logger
from prefect.states import Failed, State

from adapt import command
from adapt.environment import BUSY_DELAY_S, BUSY_TRIES
from adapt.names import one_line
from adapt.params import InputError
from flows.process import Emit, Env, stream

DVC = (sys.executable, "-m", "dvc")
BUSY = "is busy, it is being blocked by"
FAN_OUT = ("pairs", "train", "answer")  # on machines that can vanish: tried twice, train resumes

# What DVC says to people who run it by hand.
_HINT = re.compile(
    r"To track the changes|To enable auto staging|\t(git add|dvc config)|Use `dvc push`"
    r"|(Updating|Generating) lock file"
)

# A shell's own line about a command that a signal has ended, which is no reason.
_SHELLS_WORDS = {signal.strsignal(number) for number in signal.Signals}

Kind = Literal["ran", "unchanged", "InputError", "Busy", "Failed"]


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How a stage ended; one line of `message` where it failed."""

    kind: Kind
    seconds: float = 0.0
    message: str = ""


def order(root: Path) -> dict[str, set[str]]:
    """Every stage that has a command, in an order that can run, with those that it needs itself."""
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    try:
        with Repo(str(root)) as repo:
            # Imported data (`*.dvc`) are stages of DVC too, without a command.
            stages, graph = [stage for stage in repo.index.stages if stage.cmd], repo.index.graph
            before = {s: [one for one in graph.successors(s) if one.cmd] for s in stages}
            needs = {_address(s): set(map(_address, needed)) for s, needed in before.items()}
    except DvcException as error:
        raise InputError(f"DVC: {_one_line(str(error))}") from None
    return {stage: needs[stage] for stage in TopologicalSorter(needs).static_order()}


def _address(stage: Any) -> str:
    """Its name for `dvc repro` in the root; DVC's `addressing` is relative to our own folder."""
    return stage.name if stage.path_in_repo == "dvc.yaml" else f"{stage.path_in_repo}:{stage.name}"


class Blocked(InputError):
    """Another DVC command works in the workspace."""


def changed(
    root: Path, stages: Iterable[str] = (), tries: int = BUSY_TRIES, delay: float = BUSY_DELAY_S
) -> set[str]:
    """The stages (all, or of those given) that differ from dvc.lock in command, inputs or outputs.

    What depends on a changed one is not among them: whether it changes is known when that has run.
    """
    command = [*DVC, "status", "--json", *stages]
    for _ in range(tries):
        done = subprocess.run(command, cwd=root, capture_output=True, text=True)
        if done.returncode == 0:
            return set(json.loads(done.stdout))
        if BUSY not in done.stderr:
            raise InputError(f"DVC: {_one_line(done.stderr)}")
        blocker = f"another DVC command works in this workspace: {_blocker(done.stderr)}"
        if tries > 1:
            print(one_line(f"waiting {delay:.0f} s: {blocker}"), file=sys.stderr, flush=True)
            time.sleep(delay)
    raise Blocked(f"{blocker}; wait until it has ended")


def pending(root: Path, forced: Iterable[str] = (), tries: int = BUSY_TRIES) -> list[str]:
    """The stages that may have to run, in order: changed or forced, and all that depends on them.

    The last may turn out unchanged when their turn comes: what they read has come out the same.
    """
    needs = order(root)
    due = changed(root, tries=tries) | set(forced)
    for stage, needed in needs.items():
        if needed & due:
            due.add(stage)
    return [stage for stage in needs if stage in due]


def repro(root: Path, stage: str, env: Env, emit: Emit, force: bool = False) -> Outcome:
    """Run one stage by DVC, if it is out of date or `force` is set; `emit` gets its lines."""
    started = time.monotonic()
    # Asked again now: what the stage reads may have come out the same (see `pending`).
    if not force and stage not in changed(root, [stage]):
        return Outcome(kind="unchanged")
    command = [*DVC, "repro", "--single-item", *(["--force"] if force else []), stage]

    def show(line: str) -> None:
        if not _HINT.match(line):
            emit(line)

    code, last = stream(command, cwd=root, env=env, emit=show)
    seconds = time.monotonic() - started
    if code == 0:
        return Outcome(kind="ran", seconds=seconds)
    kind, message = explain(stage, last)
    return Outcome(kind=kind, seconds=seconds, message=message)


def explain(stage: str, last: list[str]) -> tuple[Kind, str]:
    """Why a stage failed, by the last lines of `dvc repro`, whose exit code is always 255."""
    # 1. DVC's verdict is its last error; the stage's own words stand before it.
    verdicts = [number for number, line in enumerate(last) if line.startswith("ERROR: ")]
    if not verdicts:
        return "Failed", f"{stage}: {last[-1] if last else 'DVC ended without a word'}"
    before, verdict = last[: verdicts[-1]], last[verdicts[-1] :]
    # 2. DVC could not run the stage at all: its lock is taken, or dvc.yaml or an input is wrong.
    if BUSY in verdict[0]:
        blocker = _blocker("\n".join(verdict))
        return "Busy", f"{stage}: another DVC command works on it: {blocker}"
    code = re.search(r"exited with (-?\d+)$", verdict[0])
    if code is None:
        return "InputError", f"{stage}: DVC: {_one_line(verdict[0])}"
    # 3. The stage has failed. Its exit code 2 is a user's mistake, which one line of its own names
    #    (`adapt.launch`); libraries may print more lines after that.
    said = [line for line in before if line not in _SHELLS_WORDS]
    reason = said[-1] if said else "nothing said why"
    if code[1] != "2":
        return "Failed", f"{stage}: {command.of_code(int(code[1]))}: {reason}"
    mistakes = [line for line in before if line.startswith(f"adapt {stage}: ")]
    return "InputError", mistakes[-1] if mistakes else f"{stage}: {reason}"


def _one_line(text: str) -> str:
    lines = [line.strip() for line in text.removeprefix("ERROR: ").splitlines() if line.strip()]
    return command.of_words(text) or "; ".join(lines[:3]) or "failed without a word"


def _blocker(text: str) -> str:
    match = re.search(r"\(PID \d+\): .*", text)
    return match[0] if match else "DVC does not say which"


def worth_retrying(_task: "Task[Any, Any]", run: TaskRun, state: State[Any]) -> bool:
    """Wait for DVC's lock a few times, try fan-out stages twice, never repeat a user's mistake."""
    if state.name == "Busy":
        return run.run_count <= BUSY_TRIES
    raised = isinstance(state.data, BaseException)  # the time limit, or a mistake of ours
    return state.name == "Failed" and not raised and run.name in FAN_OUT and run.run_count <= 1


# `worth_retrying` decides. This is one more than it ever allows: where Prefect's own count ends the
# tries, it logs an empty traceback.
RETRY = {"retries": BUSY_TRIES + 1, "retry_delay_seconds": BUSY_DELAY_S}


@task(**RETRY, retry_condition_fn=worth_retrying, cache_policy=NO_CACHE)
def reproduce(root: Path, stage: str, env: Env, force: bool) -> Outcome | State[Any]:
    """One stage as a task run. A failure is a returned state: one line of reason, no traceback."""
    log = get_run_logger()
    outcome = repro(root, stage, env, log.info, force)
    if outcome.kind not in ("ran", "unchanged"):
        return Failed(name=outcome.kind, message=outcome.message)
    log.info(
        one_line(f"{stage}: {f'{outcome.seconds:.0f} s' if outcome.kind == 'ran' else 'unchanged'}")
    )
    return outcome


def task_for(stage: str, timeout_seconds: float) -> "Task[Any, Any]":
    """The task of one stage, named after it; stopped, with all below it, after the time."""
    return reproduce.with_options(name=stage, task_run_name=stage, timeout_seconds=timeout_seconds)
