"""Why a retraining may have to start: other data, or answers that have drifted; each is an event.

`flows.watch` finds a cause and tells Prefect's server, once for each; the deployment
`retrain/on-change` of `infra/prefect.yaml` is started by either, and `infra/automations.yaml` tells
people. `reason` becomes part of the name of the run.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from adapt import addresses
from adapt.names import one_line
from adapt.params import InputError
from flows.options import LONGEST_REASON
from flows.serve import posting

DATA, DRIFT = "adapt.data", "adapt.drift"
DEPLOYMENT = "retrain/on-change"
LONGEST = 4000  # characters of a message


@dataclass(frozen=True, kw_only=True)
class Cause:
    """One event: what happened in words, the same in a few, and where to look."""

    event: str
    message: str
    reason: str
    link: str = ""


def tell(root: Path, causes: Sequence[Cause]) -> str:
    """Hand the events to Prefect's server; returns what that starts, in words.

    `InputError` where no server takes them: they are not told then, and the next look tries again.
    """
    api = posting.api(root)
    if not api:
        raise InputError("no Prefect server runs that could be told; `make serve` starts one")
    for one in causes:
        about = {"reason": one_line(one.reason, LONGEST_REASON), "link": one.link}
        try:
            posting.post(api, one.event, root, one_line(one.message, LONGEST), **about)
        except (OSError, ValueError) as error:
            where, reason = addresses.shown(api), getattr(error, "reason", None) or error
            problem = f"no Prefect server takes events at {where}: {reason}"
            raise InputError(f"{problem}; the next look tells it again") from None
    return f"told as {' and '.join(one.event for one in causes)}, which start {DEPLOYMENT}"
