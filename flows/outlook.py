"""What a retraining would do, in sentences: always an answer, and without a lock.

Also while another one runs, which is then said, and where the registry does not answer.
"""

from pathlib import Path

from adapt.registry.away import RegistryAway
from flows import plan, report, turn
from flows.options import Retraining
from flows.tasks import Blocked


def sentences(root: Path, options: Retraining) -> list[str]:
    """The answer to --dry-run; `InputError` only for what has to be corrected first."""
    now = turn.running(root)
    said = [f"A retraining is running here ({now})."] if now else []
    try:
        todo = plan.make(root, options.force, options.stages, tries=1)
    except Blocked as error:
        return [*said, f"What is due can be told when that has ended: {error}."]
    try:
        return said + _of(todo, nothing_to_do(root, todo, options))
    except RegistryAway as error:
        unknown = f"Whether the gate has decided on this result cannot be told: {error}."
        return [*said, *_of(todo, None), unknown]


def nothing_to_do(root: Path, todo: plan.Plan, options: Retraining) -> report.Ending | None:
    """The last ending, if no stage is out of date and the gate's question would be the same."""
    previous = None if todo.due or todo.left else report.last(root)
    if previous and previous.question == plan.question(todo.store, todo.config, options.promote):
        return previous
    return None


def _of(todo: plan.Plan, previous: report.Ending | None) -> list[str]:
    notes = [f"{note}." for note in todo.notes]
    if previous:
        return [*notes, "Nothing has changed; no stage would run."]
    settled = [stage for stage in todo.stages if stage not in (*todo.due, *todo.left)]
    due, unchanged = (", ".join(names) for names in (todo.due, settled))
    plans = [f"Would run: {due or 'no stage'}.", f"Unchanged: {unchanged or 'none'}."]
    if todo.left:
        return [*notes, *plans, f"Would not run: {', '.join(todo.left)}, which is due too."]
    return [*notes, *plans, "Then the gate decides on the result."]
