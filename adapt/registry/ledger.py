"""The memory of promotions: an append-only log of decisions, and what follows from reading it.

Who is the champion is not kept anywhere: it is what the log amounts to when it is read from its
first entry to its last (a fold). An entry that moves the champion names the version that it was
decided against, and counts only if that one is the champion at its place in the log. That is
compare-and-set without a lock: of two that decide at once, both write, the first one counts, and
the second sees that it does not. Where the log is kept is no matter of this file.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from functools import reduce
from typing import Any, Literal, get_args

ByGate = Literal["promoted", "refused", "waiting", "held"]
ByPerson = Literal["approved", "rejected", "rolled-back", "adopted", "deleted"]
What = Literal[ByGate, ByPerson]
"""Kinds of entries. By the gate: promoted, refused, waiting (for approval) and held (it passed, but
the retraining may not move the champion). By a person: approved, rejected, rolled-back. By a person
in the registry itself, noticed later: adopted (the alias was moved), deleted (the champion was)."""
MOVES = ("promoted", "approved", "rolled-back", "adopted", "deleted")
PASSED = ("promoted", "waiting", "held")  # the gate let it pass
LONGEST = 4000  # characters of one tag


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One decision. Versions are MLflow's numbers as text, "" for none; the log numbers entries.

    `of` is what was decided about, `against` the champion at that moment, `to` the champion from
    now on (of a kind in `MOVES`). `seen` is the number of the last entry that whoever decided knew.
    `weights` is DVC's hash of the model: the memory is of weights, whatever version they are.
    """

    what: What
    of: str
    against: str = ""
    to: str = ""
    weights: str = ""
    who: str = ""
    when: str = ""
    reasons: tuple[str, ...] = ()
    figures: Mapping[str, tuple[float | None, float | None]] = field(default_factory=dict)
    data: str = ""
    revision: str = ""
    run: str = ""
    seen: int = 0
    id: str = ""
    number: int = 0

    def tags(self) -> dict[str, str]:
        """What the registry keeps of it, as texts."""
        plain = {one.name: str(getattr(self, one.name)) for one in fields(self)}
        plain |= {"reasons": "\n".join(self.reasons), "figures": json.dumps(dict(self.figures))}
        del plain["number"]
        return {key: text[:LONGEST] for key, text in plain.items() if text}

    @property
    def out(self) -> str:
        """What it is for a version that it has taken out; moving an alias back is a rollback."""
        return "rolled-back" if self.what == "adopted" else self.what

    @staticmethod
    def of_tags(number: int, tags: Mapping[str, str]) -> "Entry | None":
        """The entry that has these tags; None where a stranger has put something else there."""
        texts = {one.name: tags.get(one.name, "") for one in fields(Entry)}
        if texts["what"] not in get_args(What):
            return None
        rest: dict[str, Any] = {
            "reasons": tuple(texts["reasons"].splitlines()),
            "figures": _figures(texts["figures"]),
            "seen": int(texts["seen"]) if texts["seen"].isdecimal() else 0,
            "number": number,
        }
        return Entry(**{**texts, **rest})


def _figures(text: str) -> dict[str, tuple[float | None, float | None]]:
    try:
        return {str(key): (old, new) for key, (old, new) in json.loads(text or "{}").items()}
    except (ValueError, TypeError, AttributeError):
        return {}  # cut, or not ours


@dataclass(frozen=True, kw_only=True)
class State:
    """What a log amounts to.

    `line` has the champions before this one that a rollback returns to by itself, oldest first;
    `reigned` all that ever were. `blocked` holds, by weights, why they are not promoted again.
    `latest` has the last entry that counted about each version, `passed` the last with which the
    gate let it pass. `ignored` are the numbers of entries that did not count.
    """

    champion: str = ""
    line: tuple[str, ...] = ()
    reigned: frozenset[str] = frozenset()
    waiting: Entry | None = None
    candidate: str = ""
    weights: Mapping[str, str] = field(default_factory=dict)
    blocked: Mapping[str, Entry] = field(default_factory=dict)
    latest: Mapping[str, Entry] = field(default_factory=dict)
    passed: Mapping[str, Entry] = field(default_factory=dict)
    ids: frozenset[str] = frozenset()
    ignored: frozenset[int] = frozenset()
    tail: int = 0

    @property
    def previous(self) -> str:
        """Where a rollback leads, "" for nowhere."""
        return self.line[-1] if self.line else ""

    @property
    def challenger(self) -> str:
        """What waits for approval, or else was asked last."""
        return self.waiting.of if self.waiting else self.candidate

    def block(self, version: str, weights: str = "") -> Entry | None:
        """Why a version is not promoted: the entry that says so, of it or of equal weights."""
        return self.blocked.get(_key(version, weights or self.weights.get(version, "")))

    def named(self, weights: str) -> str:
        """The version that the log last called by this hash, "" for none."""
        versions = [version for version, known in self.weights.items() if known == weights]
        return versions[-1] if weights and versions else ""


def fold(entries: Iterable[Entry]) -> State:
    """What a log amounts to, its entries given in the order of their numbers."""
    return reduce(after, entries, State())


def after(state: State, entry: Entry) -> State:
    """The state with one more entry; an entry that does not count only lengthens the log."""
    # An entry may stand there twice: a request that was answered too late is sent again.
    known = entry.id in state.ids and entry.id != ""
    longer = replace(state, tail=entry.number, ids=state.ids | {entry.id})
    if known or not counts(state, entry):
        return replace(longer, ignored=state.ignored | {entry.number})
    weights = entry.weights or state.weights.get(entry.of, "")
    told = replace(
        longer,
        latest={**state.latest, entry.of: entry},
        weights={**state.weights, entry.of: weights},
    )
    if entry.what in get_args(ByGate):
        told = _judged(told, entry)
    if entry.what in ("rejected", "rolled-back", "deleted"):
        told = _blocked(told, entry, [entry.of])
    return _moved(told, entry) if entry.what in MOVES else told


def counts(state: State, entry: Entry) -> bool:
    """Whether an entry at this place of the log has an effect."""
    block = state.block(entry.of, entry.weights)
    # 1. What only tells of a decision always does; rejecting the champion is a rollback's business.
    if entry.what in ("refused", "held"):
        return True
    if entry.what == "rejected":
        own = state.champion and _key(state.champion, state.weights.get(state.champion, ""))
        return _key(entry.of, entry.weights or state.weights.get(entry.of, "")) != own
    # 2. A person may let deleted weights in again; that moves nothing.
    if entry.what == "approved" and not entry.to:
        return block is not None
    # 3. Compare and set.
    if entry.against != state.champion or (entry.what != "waiting" and entry.to == state.champion):
        return False
    # 4. It is a champion that is rolled back or deleted; else what is decided about is what moves.
    about = entry.against if entry.what in ("rolled-back", "deleted") else entry.to or entry.of
    if entry.of != about:
        return False
    # 5. The gate never overrules a person. A person overrules another one only knowingly: not where
    #    the other one's decision was written in between.
    if entry.what in ("promoted", "waiting"):
        return block is None
    if entry.what in ("approved", "rolled-back"):
        earlier = state.block(entry.to, entry.weights if entry.of == entry.to else "")
        return earlier is None or earlier.number <= entry.seen
    return True


def _judged(state: State, entry: Entry) -> State:
    """The gate has seen a version: what it found replaces what it had found before."""
    passed = {version: one for version, one in state.passed.items() if version != entry.of}
    if entry.what in PASSED:
        passed[entry.of] = entry
    waiting = state.waiting
    if entry.what == "waiting":
        waiting = entry
    elif waiting and waiting.of == entry.of:
        waiting = None
    return replace(state, passed=passed, waiting=waiting, candidate=entry.of)


def _moved(state: State, entry: Entry) -> State:
    """The champion moves to `entry.to`."""
    before, to = state.champion, entry.to
    if entry.what == "approved" and not to:
        return _freed(state, entry.of, entry.weights)
    if _goes_back(state, entry):
        # What lies between is passed over: it is not to come back by itself either.
        place = state.line.index(to) if to in state.line else len(state.line)
        line, over = state.line[:place], state.line[place + 1 :]
        state = _blocked(state, entry, [before, *over])
    else:
        line = (*(one for one in state.line if one != to), *([before] if before else []))
    state = _freed(state, to, entry.weights if entry.of == to else "")
    reigned = state.reigned | ({to} if to else set())
    return replace(state, champion=to, line=line, reigned=reigned, waiting=None)


def _goes_back(state: State, entry: Entry) -> bool:
    """Whether it leads to an earlier champion, an older version or to none.

    An alias that was moved by hand to a newer version is a promotion by hand.
    """
    if entry.what != "adopted":
        return entry.what in ("rolled-back", "deleted")
    if not entry.to or entry.to in state.line:
        return True
    return bool(state.champion) and _order(entry.to) < _order(state.champion)


def _order(version: str) -> int:
    return int(version) if version.isdecimal() else 0


def _blocked(state: State, entry: Entry, versions: Iterable[str]) -> State:
    """None of these versions is promoted again, nor what has equal weights."""
    keys = [_key(one, state.weights.get(one, "")) for one in versions if one]
    waiting = state.waiting
    if waiting and _key(waiting.of, waiting.weights) in keys:
        waiting = None
    return replace(state, blocked={**state.blocked, **dict.fromkeys(keys, entry)}, waiting=waiting)


def _freed(state: State, version: str, weights: str) -> State:
    key = _key(version, weights or state.weights.get(version, ""))
    kept = {other: entry for other, entry in state.blocked.items() if other != key}
    return replace(state, blocked=kept)


def _key(version: str, weights: str) -> str:
    """What the memory is of: weights, or a version where nobody knows their hash."""
    return weights or f"version {version}"
