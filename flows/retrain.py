"""Retrain: bring every stage up to date, register the model, and promote it if the gate agrees.

    python -m flows.retrain              # what `make run` does
    python -m flows.retrain --dry-run    # say what would run
    python -m flows.retrain --help

DVC decides which stages run; this decides when one is retried, stopped or refused. Nothing has to
be started before: without PREFECT_API_URL, Prefect brings a temporary server along, and if nothing
has changed not even that. The same flow is what `infra/prefect.yaml` schedules.
"""

import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from prefect import flow
from prefect.exceptions import TerminationSignal
from prefect.runtime import flow_run
from prefect.states import State

from adapt import command, environment, names
from adapt.params import InputError
from adapt.registry.away import RegistryAway
from flows import approval, events, outlook, plan, reaper, report, revision, run_names, turn
from flows.away import LATER
from flows.endings import Ended
from flows.options import MINUTE, Retraining, parse
from flows.prefect_api import GONE, prefect_here
from flows.running import carry_out
from flows.tasks import Blocked

KEPT = "finished stages are kept, the next retraining goes on from there"
_endings: list[Ended] = []  # of this process: Prefect cannot be asked when its server is gone


def _called() -> str:
    """The name of the flow run when it starts; its end is known later."""
    given = flow_run.parameters.get("options") or {}
    reason = given.get("reason", "") if isinstance(given, dict) else given.reason
    return run_names.of_run(Path.cwd(), None, reason)


@flow(name="retrain", flow_run_name=_called, validate_parameters=True)
def retrain(options: Retraining = Retraining()) -> State[Any]:  # noqa: B008 (frozen)
    """Bring the pipeline in the working folder up to date and let the gate decide on the result."""
    root = Path.cwd()
    reaper.watch()
    ending = in_one_line(root, options)
    state = ended(root, ending)
    # A person may take a day. Nobody else waits for that: the turn has been given back.
    if ending.kind == "AwaitingApproval":
        decided = approval.person(root, ending, options.approval_minutes)
        return ended(root, decided) if decided else state
    return state


def in_one_line(root: Path, options: Retraining) -> Ended:
    """One retraining; what is not a mistake of ours ends it with one line, without a traceback."""
    try:
        with command.plainly(), revision.place(root, options) as here:
            if options.dry_run:
                return Ended(kind="DryRun", message=" ".join(outlook.sentences(here, options)))
            return once(here, options)
    except (turn.Busy, Blocked) as error:
        return Ended(kind="Busy", message=str(error))
    except RegistryAway as error:
        return Ended(kind="RegistryAway", message=f"{error}; {LATER}")
    except command.Trouble as error:
        return Ended(kind="Failed", message=str(error))
    except InputError as error:
        return Ended(kind="InputError", message=str(error))


def once(root: Path, options: Retraining) -> Ended:
    """Take the turn, find out what is due, and do it."""
    with turn.taken(root, options.wait_minutes * MINUTE) as mine:
        todo = plan.make(root, options.force, options.stages)
        if outlook.nothing_to_do(root, todo, options):
            return Ended(kind="Unchanged", message="nothing changed, no stage ran")
        return carry_out(root, todo, options, mine)


def ended(root: Path, ending: Ended) -> State[Any]:
    """The state in which a retraining ends; whoever has to know is told here."""
    _endings.append(ending)
    if ending.kind != "DryRun":
        events.tell(root, ending.kind, ending.message, ending.page)
    return ending.state()


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; exit code 0 also for a refusal by the gate, 2 for a user's mistake."""
    options = parse(arguments, __doc__)
    return command.ended("retrain", lambda: tried(options))


def tried(options: Retraining) -> int:
    """One retraining from the command line; what is nobody's mistake ends with exit code 1."""
    try:
        with environment.terminable(), command.plainly():
            return run(Path.cwd(), options)
    except RegistryAway as error:
        message, code = f"{error}; {LATER}", 1
    except command.Trouble as error:
        message, code = str(error), 1
    except (KeyboardInterrupt, TerminationSignal, SystemExit):
        message, code = f"stopped; {KEPT}", 130
    command.tell("retrain", message)
    return code


def run(root: Path, options: Retraining) -> int:
    """One retraining from the command line, its result on the screen; returns the exit code."""
    with revision.place(root, options) as here:
        if options.dry_run:
            print("\n".join(outlook.sentences(here, options)))
            return 0
        # 1. Find out what is due. If nothing is, there is no flow run: starting Prefect's server to
        #    record that takes longer than finding it out. A scheduled one ends as "Unchanged".
        with turn.taken(here, options.wait_minutes * MINUTE):
            todo = plan.make(here, options.force, options.stages)
            previous = outlook.nothing_to_do(here, todo, options)
        if previous:
            print(f"Nothing has changed since {previous.finished}; no stage ran. The last result:")
            report.show(here, previous)
            return 0
    # 2. The flow locks and plans again: another retraining may have come between.
    ending = recorded(root, options)
    # 3. The table comes last on the screen: Prefect would still say that its server has ended.
    logging.getLogger("prefect").setLevel(logging.WARNING)
    if ending.promotion and (kept := report.last(here)):
        report.show(here, kept)
    else:
        line = names.one_line(ending.message, command.LONGEST)
        print(f"retrain: {line}", file=sys.stderr if ending.failed else sys.stdout)
    return (2 if ending.kind in ("InputError", "Busy") else 1) if ending.failed else 0


def recorded(root: Path, options: Retraining) -> Ended:
    """The end of a retraining under Prefect; also where Prefect's server dies meanwhile."""
    reaper.watch()
    before = len(_endings)
    try:
        with prefect_here(root, "retrain"):
            state = retrain(options, return_state=True)
        message = f"{state.message}; {KEPT}"
    except GONE as error:
        message = f"Prefect's server does not answer any more ({error}); {KEPT}"
    if len(_endings) > before:
        return _endings[-1]
    return Ended(kind="Failed", message=message)


if __name__ == "__main__":
    raise SystemExit(main())
