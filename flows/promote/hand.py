"""What a person says about a version: approve it, reject it, take the champion back.

Every decision goes into the ledger with who and why, and is answered by a sentence. None of these
asks the gate or loads a model, so that a rollback takes seconds.
"""

import getpass
import os
import socket
from dataclasses import replace
from typing import Any

from adapt.params import InputError
from adapt.registry import settling
from adapt.registry.ledger import Entry
from adapt.registry.standing import Standing
from adapt.tracking.store import Store

COMMAND = "python -m flows.promote"


def person() -> str:
    """Whoever sits at this terminal, and where it stands."""
    try:
        name = getpass.getuser()
    except (KeyError, OSError):  # a container without users
        name = f"user {os.getuid()}"
    return f"{name} on {socket.gethostname()}"


def approve(store: Store, version: str, who: str, why: str = "") -> str:
    """Make a version the champion that the gate let pass; returns a sentence."""
    model, stands = store.config.model, settling.settled(store, begin=True)
    champion, passed = stands.state.champion, stands.state.passed.get(version)
    if version == champion:
        return f"{model} version {version} is the champion already"
    weights = stands.weights(version) or stands.state.weights.get(version, "")
    known: dict[str, Any] = {"of": version, "weights": weights, "who": who, "reasons": _why(why)}
    # 1. Weights that somebody deleted can only be let in again.
    if not stands.has(version) and stands.state.block(version, weights):
        _decided(store, stands, Entry(what="approved", against=champion, **known))
        return f"the weights of {model} version {version} may be registered and promoted again"
    _require_there(store, stands, version)
    # 2. An approval does not stand in for the gate, nor for a comparison with today's champion.
    if not passed:
        raise InputError(f"version {version}: {_never_passed(stands, version)}")
    if passed.against != champion:
        was, now = (f"version {one}" if one else "the base" for one in (passed.against, champion))
        problem = f"version {version} was compared with {was}, and the champion is {now} now"
        raise InputError(f"{problem}; retrain to have it compared with that{_or_back(stands)}")
    _decided(store, stands, Entry(what="approved", against=champion, to=version, **known))
    return f"{model} version {version} was promoted to champion, approved by {who}"


def reject(store: Store, version: str, who: str, why: str) -> str:
    """Keep a version, and all of equal weights, from being promoted; returns a sentence."""
    model, stands = store.config.model, settling.settled(store, begin=True)
    _require_there(store, stands, version)
    if version == stands.champion:
        advice = f"`{COMMAND} rollback --why ...` takes it back"
        raise InputError(f"version {version} is the champion; {advice}")
    if block := stands.state.block(version, stands.weights(version)):
        return f"{model} version {version} is out already: {'; '.join(why_not(version, block))}"
    known: dict[str, Any] = {
        "of": version,
        "weights": stands.weights(version),
        "against": stands.state.champion,
    }
    _decided(store, stands, Entry(what="rejected", who=who, reasons=_why(why), **known))
    return f"{model} version {version} was rejected by {who}; it is not promoted by a retraining"


def rollback(store: Store, to: str | None, who: str, why: str) -> str:
    """Make an earlier champion the champion again, the last one unless `to` says which.

    What it goes back from is not promoted again until a person approves it. Returns a sentence.
    """
    model, stands = store.config.model, settling.settled(store, begin=True)
    champion, target = stands.state.champion, to or stands.previous
    if target is None:
        raise InputError(f"{model} has no earlier champion to go back to")
    _require_there(store, stands, target)
    if target == champion:
        return f"{model} version {target} is the champion already"
    if target not in stands.state.reigned:
        raise InputError(f"version {target} was never champion; `{COMMAND} approve {target}`")
    entry = Entry(
        what="rolled-back",
        of=champion,
        against=champion,
        to=target,
        weights=stands.weights(champion),
        who=who,
        reasons=_why(why),
    )
    after = _decided(store, stands, entry)
    out = [v for v in after.versions if _is_out(after, v) and not _is_out(stands, v)]
    which = f"version {out[0]} stays" if len(out) == 1 else f"versions {', '.join(out)} stay"
    rest = f"; {which} out until a person approves it" if out else ""
    return f"{model} version {target} is the champion again{rest}"


def why_not(version: str, block: Entry) -> tuple[str, ...]:
    """Why a version is not promoted, whatever the gate would say."""
    told = block.out.replace("-", " ")
    # A rollback names where it starts from and leads; it takes out what lies between, too.
    is_own = block.out == "rolled-back" or block.of == version
    which = version if is_own else f"{block.of}, of the same weights,"
    head = f"version {which} was {told} on {block.when} by {block.who}"
    rest = f"it stays out until something new is trained, or `{COMMAND} approve {version}`"
    return (f"{head}: {'; '.join(block.reasons) or 'no reason given'}", rest)


def _decided(store: Store, stands: Standing, entry: Entry) -> Standing:
    """Write it; InputError where somebody was faster, who may have decided otherwise."""
    counted, after = settling.decide(store, replace(entry, seen=stands.state.tail))
    if not counted:
        last = after.counted[0]
        now = f"{last.what} version {last.of} by {last.who}"
        raise InputError(f"nothing was done: somebody decided at the same time ({now}); look again")
    return after


def _require_there(store: Store, stands: Standing, version: str) -> None:
    if not stands.has(version):
        there = ", ".join(sorted(stands.versions, key=int)[-10:]) or "none"
        name = store.config.model
        raise InputError(f"{name} has no version {version}; the last ones are: {there}")


def _never_passed(stands: Standing, version: str) -> str:
    latest = stands.state.latest.get(version)
    if latest is None or not latest.reasons:
        return "the gate has not been asked about it; retrain with these weights"
    advice = "an approval does not stand in for the gate: change its rules, or train again"
    return f"it did not pass the gate ({latest.reasons[0]}); {advice}"


def _or_back(stands: Standing) -> str:
    return f", or `{COMMAND} rollback --to N` to an earlier champion" if stands.state.line else ""


def _is_out(stands: Standing, version: str) -> bool:
    return stands.state.block(version, stands.weights(version)) is not None


def _why(why: str) -> tuple[str, ...]:
    return tuple(line for line in why.splitlines() if line.strip())
