"""Writing into the ledger, and letting the registry show what it says.

The ledger says who is champion; the aliases `champion`, `previous` and `challenger` in MLflow only
show it, and so do the tags of a decision on its version. Between an entry and its aliases a process
can die, and a slow one can set an alias that has been overtaken. So whoever looks compares, and
sets right what differs. An alias that differs may also have been moved by a person: that is a
decision of its own, and goes into the ledger. Marks (`adapt.registry.marks`) tell the two apart.
"""

import logging
import uuid
from collections.abc import Iterable, Sequence
from contextlib import nullcontext
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from adapt.names import one_line, tag
from adapt.params import InputError
from adapt.registry import describing, entries, found, marks
from adapt.registry.away import asks
from adapt.registry.ledger import MOVES, Entry
from adapt.registry.standing import CHAMPION, Look, Standing, look
from adapt.tracking.races import again
from adapt.tracking.store import Store

if TYPE_CHECKING:
    from mlflow import MlflowClient

SETTLES = 50  # looks until ledger and aliases agree, while others go on deciding
log = logging.getLogger(__name__)


@asks
def settled(store: Store, *, begin: bool = False, marked: Sequence[str] = ()) -> Standing:
    """How things stand, once ledger and aliases agree; sets right what does not.

    With `begin`, a ledger is begun where there is none; otherwise nothing is written then. `marked`
    are versions for which the caller has left a mark.
    """
    client, model = store.client, store.config.model
    seen: Look | None = None
    for _ in range(SETTLES):
        seen = look(client, model, seen)
        if not seen.standing.log.entries:
            first = list(found.first(seen)) if begin else []
            if not first:
                return seen.without_ledger()
            _write(client, model, first)
        elif deleted := found.deleted(seen.standing):
            values = (seen.champion, deleted.to)
            with marks.mark(client, model, *values):
                _write(client, model, [deleted])
                return settled(store, marked=values)
        elif seen.is_unexplained:
            if moved := found.moved(client, model, seen):
                _write(client, model, [moved])
        elif shown := _shown(client, model, seen, marked):
            marks.forget_the_dead(client, model, shown.marks)
            return shown.standing
    raise InputError(
        f"the ledger of {model} does not come to rest: others keep deciding; try again"
    )


@asks
def decide(store: Store, entry: Entry) -> tuple[bool, Standing]:
    """Write a decision; returns whether it counts, and how things stand then.

    It does not where the champion moved, or a person spoke, after what the decision was made by.
    """
    client, model = store.client, store.config.model
    written = _stamped(entry)
    mine = (written.against, written.to) if written.what in MOVES else ()
    with marks.mark(client, model, *mine) if mine else nullcontext():
        entries.append(client, model, written)
        standing = settled(store, marked=mine)
    (number,) = [one.number for one in standing.log.entries if one.id == written.id][:1]
    return number not in standing.state.ignored, standing


def _write(client: "MlflowClient", model: str, news: Iterable[Entry]) -> None:
    """Put into the ledger what was found in the registry, and say so."""
    for entry in news:
        entries.append(client, model, _stamped(entry))
        log.warning("%s: %s", one_line(model), one_line("; ".join(entry.reasons)))


def _stamped(entry: Entry) -> Entry:
    """The entry with the time and an id of its own, where it has none."""
    now = f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC"
    return replace(entry, when=entry.when or now, id=entry.id or uuid.uuid4().hex)


def _shown(client: "MlflowClient", model: str, seen: Look, marked: Sequence[str]) -> Look | None:
    """Let tags and aliases show what the ledger says; the look that found all to agree.

    None where others write all the time.
    """
    # 1. Tags come first: who sees a new champion finds the reasons there.
    for version in seen.standing.versions:
        _tell(client, model, seen.standing, version)
    if not seen.wrong:
        return seen
    # 2. Set the aliases, look again, and set them again if the ledger has gone on meanwhile: then
    #    somebody else's were overwritten. A mark stays until all agrees.
    values = (seen.champion, seen.wrong.get(CHAMPION, seen.champion))
    is_left = CHAMPION not in seen.wrong or set(values) <= set(marked)
    with nullcontext() if is_left else marks.mark(client, model, *values):
        for _ in range(SETTLES):
            for alias, version in seen.wrong.items():
                _set(client, model, alias, version)
            seen = look(client, model, seen)
            if not seen.wrong:
                return seen
    return None


def _set(client: "MlflowClient", model: str, alias: str, version: str) -> None:
    """Move an alias, or take it away; a version that has just been deleted is the next look's."""
    from mlflow.exceptions import MlflowException

    try:
        if version:
            again(client.set_registered_model_alias, model, alias, version)
        else:
            again(client.delete_registered_model_alias, model, alias)
    except MlflowException as error:
        if error.error_code != entries.MISSING:
            raise


def _tell(client: "MlflowClient", model: str, standing: Standing, version: str) -> None:
    """Write the last decision about a version into its tags, unless they have it."""
    entry = standing.decision(version) if standing.has(version) else None
    if entry is None or standing.versions[version].get("adapt.ledger") == str(entry.number):
        return
    told = {
        "adapt.decision": standing.word(version),
        "adapt.reasons": "\n".join(entry.reasons),
        "adapt.decided": f"{entry.when}, {entry.who}",
        "adapt.ledger": str(entry.number),
    }
    # The description first: the tags say that all is told.
    before = str(client.get_model_version(model, version).description or "")
    about = describing.version(
        model, version, standing.versions[version], entry, standing.log.entries, before
    )
    again(client.update_model_version, model, version, about)
    for key, text in told.items():
        again(client.set_model_version_tag, model, version, key, tag(text))
