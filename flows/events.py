"""What a retraining tells people who were not watching it: an event in Prefect for each ending.

An event reaches a person through `infra/automations.yaml`, which `flows.serve.alarms` deploys. A
failure needs no event of ours: Prefect's own says that a run has failed, and its worker or its
heartbeat that one was killed, which the run itself could not say any more.
"""

import json
import logging
from datetime import UTC, date, datetime
from pathlib import Path

from prefect.events import emit_event
from prefect.settings import PREFECT_API_URL

from adapt import environment
from adapt.files import whole_file
from flows.promote.announced import MOVED

EVENTS = {
    "Promoted": MOVED,
    "Refused": "adapt.retraining.refused",
    "AwaitingApproval": "adapt.retraining.approval-needed",
    "Unchanged": "adapt.retraining.unchanged",
}
"""The event of each ending of a retraining, by the name of its state."""

BUSY = ("Promoted", "Refused", "Held", "AwaitingApproval", "Partial")
"""Endings of nights in which something was to do."""

LONGEST = 4000  # characters of a message


def tell(root: Path, ending: str, message: str, link: str = "") -> None:
    """Emit the event of an ending, named as its state; others have none.

    `message` says in words what happened, `link` where to look besides the flow run. Never raises
    and never waits: a message that cannot be sent must not cost a finished retraining.
    """
    nights = quiet_nights(root, ending, datetime.now(UTC).date())
    # A temporary server has no service that would act on an event.
    if ending not in EVENTS or not PREFECT_API_URL.value():
        return
    resource = {"prefect.resource.id": f"adapt.workspace.{root.name}", "adapt.nights": str(nights)}
    said = {"message": message[:LONGEST], "link": link, "nights": nights, "workspace": root.name}
    emit_event(EVENTS[ending], resource=resource, payload=said)


def quiet_nights(root: Path, ending: str, today: date) -> int:
    """On how many days in a row there was nothing to do, today included; 0 when there was.

    Counted in the state folder, each day once. A failure and a dry run say nothing about it.
    """
    path = environment.state_dir(root) / "nights.json"
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))
        last, nights = str(kept["last"]), int(kept["nights"])
    except (OSError, ValueError, KeyError, TypeError):
        last, nights = "", 0
    if ending in BUSY:
        nights = 0
    elif ending != "Unchanged":
        return nights
    elif last != today.isoformat() or nights == 0:
        nights += 1
    try:
        with whole_file(path) as partial:
            partial.write_text(json.dumps({"last": today.isoformat(), "nights": nights}))
    except OSError as error:
        reason = error.strerror or type(error).__name__
        logging.getLogger(__name__).warning(f"{path}: {reason}; this night is not counted")
    return nights
