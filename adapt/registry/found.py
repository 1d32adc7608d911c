"""What people did in the registry itself, found by looking and put into the ledger as entries.

They are entitled to: to move the alias on MLflow's page, to delete a version, to have had a
registry for a year before there was a ledger. Somebody may even delete the ledger.
"""

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

from adapt.registry.ledger import Entry
from adapt.registry.standing import WEIGHTS, Look, Standing, look

if TYPE_CHECKING:
    from mlflow import MlflowClient

BY_HAND = "somebody in the registry"
OUT = (
    "rejected",
    "rolled-back",
    "deleted",
)  # a version's tag `adapt.decision` where a person has said no
AGAIN_S = 0.3  # an alias that looks moved by hand is looked at once more after this long


def first(seen: Look) -> Iterator[Entry]:
    """What a new ledger begins with: the champion that there is, and what people had refused."""
    versions, champion = seen.standing.versions, seen.champion
    # 1. Versions that tell of entries had a ledger before.
    lost = any("adapt.ledger" in tags for tags in versions.values())
    why = "the ledger was deleted by hand; a new one begins" if lost else "the ledger begins"
    if champion:
        yield Entry(
            what="adopted",
            of=champion,
            to=champion,
            weights=seen.standing.weights(champion),
            who=BY_HAND if lost else "the pipeline",
            reasons=(f"{why} with version {champion} as the champion",),
            id=f"begin-{champion}",
        )
    # 2. What a person said no to stays so: the tags of its version tell it.
    for version, tags in versions.items():
        if tags.get("adapt.decision", "").replace(" ", "-") in OUT and version != champion:
            yield Entry(
                what="rejected",
                of=version,
                against=champion,
                weights=tags.get(WEIGHTS, ""),
                who=tags.get("adapt.decided") or BY_HAND,
                reasons=(
                    *tags.get("adapt.reasons", "").splitlines()[:1],
                    f"{why}; its tag said so",
                ),
                id=f"begin-{version}",
            )


def deleted(standing: Standing) -> Entry | None:
    """An entry where a person deleted the champion's version. The one before is better than none:

    without it the gate would compare with the base, which is easily beaten.
    """
    champion, then = standing.state.champion, standing.previous or ""
    if not champion or standing.has(champion):
        return None
    now = f"version {then} is champion again" if then else "there is no champion"
    return Entry(
        what="deleted",
        of=champion,
        against=champion,
        to=then,
        weights=standing.state.weights.get(champion, ""),
        who=BY_HAND,
        reasons=(f"version {champion} was deleted by hand; {now}",),
    )


def moved(client: "MlflowClient", model: str, seen: Look) -> Entry | None:
    """An entry where a person moved the alias: a second look finds it unexplained and the same."""
    time.sleep(AGAIN_S)
    again, to = look(client, model, seen), seen.champion
    is_same = again.champion == to and again.standing.state.tail == seen.standing.state.tail
    if not is_same or not again.is_unexplained:
        return None
    champion = seen.standing.state.champion
    where = f"moved by hand to version {to}" if to else "taken away by hand"
    return Entry(
        what="adopted",
        of=to,
        against=champion,
        to=to,
        weights=seen.standing.weights(to),
        who=BY_HAND,
        reasons=(f"the alias champion was {where}; it was at version {champion or 'none'}",),
    )
