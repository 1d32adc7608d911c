"""A person's say: the flow run pauses with a form, and goes on with what was answered.

That needs a server which shows the form, and a worker that keeps the run: a run of a deployment. A
time limit decides nothing. Whoever is late says `python -m flows.promote approve N`, or starts the
deployment of that name; both end in the same function as the form.
"""

from dataclasses import replace
from pathlib import Path
from typing import Literal

from prefect import pause_flow_run
from prefect.client.orchestration import get_client
from prefect.exceptions import FlowPauseTimeout
from prefect.input import RunInput
from prefect.logging import get_run_logger
from prefect.runtime import deployment, flow_run
from prefect.states import Running
from pydantic import Field

from adapt.names import one_line
from adapt.params import InputError
from adapt.registry.away import RegistryAway
from adapt.tracking import presentation
from adapt.tracking.store import Store
from flows import plan
from flows.endings import Ended
from flows.promote import hand
from flows.promote.ending import Promotion

POLL_S = 5
COMMAND = "`python -m flows.promote`"
SOMEBODY = "somebody on Prefect's page"


class Decision(RunInput):
    """The form. What it holds before somebody touches it decides nothing."""

    decision: Literal["decide later", "approve", "reject"] = Field(
        default="decide later",
        description="approve: it becomes the champion; reject: these weights stay out; "
        "decide later: it goes on waiting",
    )
    who: str = Field(default="", description="your name, for the record")
    why: str = Field(default="", description="your reason, for the record")


def person(root: Path, ending: Ended, minutes: int) -> Ended | None:
    """What a person decides about a version that awaits approval, within so many minutes.

    None where nobody can be asked, or nobody has decided: the version goes on waiting then. Whoever
    calls this holds no lock, for it can take a day.
    """
    if ending.promotion is None or not (minutes and can_be_asked()):
        return None
    store = Store(root, plan.configuration(root)["tracking"])
    get_run_logger().info(one_line(f"{ending.message}; press Resume on this page to decide"))
    decision = ask(text(store.config.model, ending.promotion, ending.page), 60 * minutes)
    if decision is None or decision.decision == "decide later":
        return None
    return decided(store, ending, decision)


def decided(store: Store, ending: Ended, decision: Decision) -> Ended:
    """Carry out what the form says, in the way of the command line."""
    assert ending.promotion is not None
    version, who = ending.promotion.version, one_line(decision.who) or SOMEBODY
    why = one_line(decision.why)
    try:
        if decision.decision == "approve":
            message = hand.approve(store, version, who, why)
            return replace(ending, kind="Promoted", message=message)
        message = hand.reject(store, version, who, why)
        return replace(ending, kind="Refused", message=message)
    except RegistryAway as error:
        kept = f"what the form said is not carried out; say it again by {COMMAND}"
        return replace(ending, kind="RegistryAway", message=f"{error}; {kept}")
    except InputError as error:  # others have decided meanwhile, or the champion is another one
        return replace(ending, kind="InputError", message=str(error))


def can_be_asked() -> bool:
    """Whether this run can wait for an answer: a worker runs it for a deployment of a server."""
    return bool(deployment.id)


def ask(above: str, seconds: int) -> Decision | None:
    """Pause the flow run until the form is sent; None when nobody has within the time.

    `above` (Markdown) stands above the form.
    """
    form = Decision.with_initial_data(description=above)
    try:
        return pause_flow_run(wait_for_input=form, timeout=seconds, poll_interval=POLL_S)
    except FlowPauseTimeout:
        # Prefect turns any ending of a run whose pause has run out into a failure.
        with get_client(sync_client=True) as client:
            client.set_flow_run_state(flow_run.id, Running(), force=True)
        return None


def text(model: str, promotion: Promotion, page: str) -> str:
    """What to know before deciding: the way to pictures, figures, the gate's reasons.

    In this order: where the window is low, the page shows the beginning and lets one scroll.
    """
    pictures = f" [Curves and pictures]({page}/artifacts)" if page else ""
    blocks = (
        f"**{promotion.sentence(model)}.** Before is the {promotion.against}.{pictures}",
        presentation.table(promotion.figures(), promotion.digits),
        "\n".join(f"* {one_line(reason)}" for reason in promotion.reasons),
    )
    return "\n\n".join(block for block in blocks if block)
