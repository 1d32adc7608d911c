"""The ledger as a fold: who is champion after any log, and what no order of entries can do."""

from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapt.registry import ledger
from adapt.registry.ledger import Entry, State, after, counts, fold

WEIGHTS = {"1": "a", "2": "b", "3": "c", "4": "d", "5": "b"}  # 2 and 5 are equal


@dataclass
class Log:
    """Entries as a registry numbers them."""

    entries: list[Entry] = field(default_factory=list)

    def add(self, what: str, of: str, **more: object) -> State:
        """Write an entry that knows all there is, unless `more` says otherwise."""
        state = self.state
        moves = what in ("promoted", "approved", "adopted")
        known: dict[str, object] = {"against": state.champion, "to": of if moves else ""}
        known |= {"seen": state.tail, "id": f"e{len(self.entries)}", "weights": WEIGHTS.get(of, "")}
        self.entries.append(Entry(what=what, of=of, number=len(self.entries) + 1, **known | more))  # type: ignore[arg-type]
        return self.state

    @property
    def state(self) -> State:
        return fold(self.entries)


def promotions(*versions: str) -> Log:
    log = Log()
    for version in versions:
        log.add("promoted", version)
    return log


def test_champions_follow_one_another_and_a_rollback_goes_back() -> None:
    log = promotions("1", "2", "3")
    assert (log.state.champion, log.state.previous, log.state.line) == ("3", "2", ("1", "2"))
    state = log.add("rolled-back", "3", to="2", reasons=("too slow",))
    assert (state.champion, state.previous) == ("2", "1")
    block = state.block("3")
    assert block and block.reasons == ("too slow",)
    # A retraining that comes to the same weights, whatever version it calls them, moves nothing.
    assert log.add("promoted", "3").champion == "2"
    assert log.add("promoted", "9", weights="c").champion == "2"
    assert log.state.ignored == {5, 6}
    assert log.add("promoted", "4").champion == "4"


def test_a_rollback_past_a_champion_blocks_that_too() -> None:
    log = promotions("1", "2", "3")
    state = log.add("rolled-back", "3", to="1")
    assert (state.champion, state.line, set(state.blocked)) == ("1", (), {"b", "c"})
    assert log.add("rolled-back", "1", to="3").champion == "3"  # a person may think again
    assert set(log.state.blocked) == {"a", "b"}


def test_of_two_that_decide_at_once_the_first_counts() -> None:
    log = promotions("1")
    assert log.add("promoted", "2", against="1").champion == "2"
    state = log.add("promoted", "3", against="1")
    assert (state.champion, state.ignored) == ("2", {3})


def test_a_request_that_was_sent_twice_is_one_entry() -> None:
    log = promotions("1", "2")
    log.add("rolled-back", "2", to="1", id="same")
    log.add("approved", "2")
    assert log.add("rolled-back", "2", to="1", id="same").champion == "2"


def test_the_gate_never_overrules_a_person_and_a_person_only_knowingly() -> None:
    log = promotions("1")
    log.add("waiting", "2")
    assert log.state.waiting and log.state.challenger == "2"
    log.add("rejected", "2", reasons=("worse on charts",))
    assert log.state.waiting is None and log.state.block("2")
    assert log.add("promoted", "2").champion == "1"
    assert log.add("approved", "2", seen=2).champion == "1"  # written before the rejection was read
    assert log.add("approved", "2").champion == "2"
    assert log.state.block("2") is None


def test_the_champion_is_rolled_back_and_never_rejected() -> None:
    log = promotions("1", "2")
    assert log.add("rejected", "2").ignored == {3}
    assert log.add("rejected", "5").ignored == {3, 4}  # the same weights
    assert log.state.blocked == {}


def test_an_alias_moved_by_hand_is_a_rollback_or_a_promotion() -> None:
    log = promotions("1", "2")
    back = log.add("adopted", "1")
    assert (back.champion, back.line, set(back.blocked)) == ("1", (), {"b"})
    forth = log.add("adopted", "4")
    assert (forth.champion, forth.line, set(forth.blocked)) == ("4", ("1",), {"b"})
    none = log.add("adopted", "", weights="")
    assert (none.champion, none.previous, set(none.blocked)) == ("", "1", {"b", "d"})


def test_a_deleted_champion_stays_out_until_a_person_lets_it_in() -> None:
    log = promotions("1", "2")
    state = log.add("deleted", "2", to="1")
    assert (state.champion, state.line) == ("1", ())
    assert log.add("promoted", "5").champion == "1"
    assert log.add("approved", "2", to="").champion == "1"
    assert log.add("promoted", "5").champion == "5"


def test_what_waits_ends_waiting_when_the_champion_moves_or_a_newer_one_waits() -> None:
    log = promotions("1")
    log.add("waiting", "2")
    log.add("waiting", "3")
    assert log.state.challenger == "3"
    log.add("refused", "4")
    assert log.state.challenger == "3"
    log.add("rolled-back", "1", to="4")
    assert log.state.waiting is None and log.state.challenger == "4"


def test_an_entry_survives_the_registry_and_a_stranger_is_no_entry() -> None:
    entry = Entry(
        what="promoted",
        of="2",
        against="1",
        to="2",
        weights="w",
        who="nightly",
        reasons=("passed: Hal", "passed: Cover"),
        figures={"Hal %": (40.0, 10.0), "Cover %": (None, 1.0)},
        seen=4,
        number=5,
    )
    assert Entry.of_tags(5, entry.tags()) == entry
    assert Entry.of_tags(5, {}) is None
    assert Entry.of_tags(5, {"what": "crowned", "of": "2"}) is None
    broken = {**entry.tags(), "figures": '{"Hal %": 4', "seen": "many"}
    assert Entry.of_tags(5, broken) == replace(entry, figures={}, seen=0)


versions = st.sampled_from(["", *WEIGHTS])
written = st.builds(
    Entry,
    what=st.sampled_from(get_args(ledger.What)),
    of=st.sampled_from(list(WEIGHTS)),
    against=versions,
    to=versions,
    seen=st.integers(0, 30),
    id=st.sampled_from([f"e{n}" for n in range(60)]),
)


def numbered(entries: list[Entry]) -> list[Entry]:
    """As a log has them; who is promoted or approved is who it was decided about."""
    same = ("promoted", "approved", "adopted")
    return [
        replace(
            one,
            number=place,
            weights=WEIGHTS[one.of],
            to=one.of if one.what in same and one.to else one.to,
        )
        for place, one in enumerate(entries, start=1)
    ]


@given(st.lists(written, max_size=30))
def test_whatever_is_written_there_is_one_champion_and_every_move_starts_from_it(
    entries: list[Entry],
) -> None:
    state = State()
    for entry in numbered(entries):
        before, state = state, after(state, entry)
        assert state.tail == entry.number
        if entry.number in state.ignored:
            assert replace(state, tail=0, ids=frozenset(), ignored=frozenset()) == replace(
                before, tail=0, ids=frozenset(), ignored=frozenset()
            )
        elif state.champion != before.champion:
            assert entry.against == before.champion and state.champion == entry.to
        assert state.champion not in state.line and len(set(state.line)) == len(state.line)
        assert not state.champion or state.block(state.champion) is None
        assert state.waiting is None or state.block(state.waiting.of) is None
    assert fold(numbered(entries)) == state


people = st.sampled_from(["rolled-back", "rejected", "deleted"])


@given(st.lists(written, max_size=20), people, st.lists(written, max_size=20))
def test_what_a_person_took_away_no_gate_brings_back(
    entries: list[Entry], what: str, later: list[Entry]
) -> None:
    log = Log(numbered(entries))
    log.add("promoted", "4")
    if what == "rejected":
        log.add("adopted", "1")
        log.add("rejected", "4", id="p")
    else:
        log.add(what, log.state.champion, to=log.state.previous, id="p")
    taken = set(log.state.blocked)
    by_gate = [one for one in later if one.what in ("promoted", "refused", "waiting", "held")]
    for one in by_gate:
        log.add(one.what, one.of, id="")
        assert WEIGHTS.get(log.state.champion) not in taken


@given(st.lists(st.tuples(st.sampled_from(["1", "2", "3", "4"]), st.integers(0, 6)), max_size=40))
def test_deciders_that_lag_behind_lose_and_leave_no_trace(decisions: list[tuple[str, int]]) -> None:
    """Each decides by the log as it was some entries ago, as slow processes do."""
    log = Log()
    for version, lag in decisions:
        known = fold(log.entries[: max(0, len(log.entries) - lag)])
        if version == known.champion:
            continue
        before = log.state
        entry = {"against": known.champion, "seen": known.tail}
        state = log.add("promoted", version, **entry)
        stale = known.champion != before.champion or version == before.champion
        assert (state.champion == before.champion) is stale
    moves = [one for one in log.entries if one.number not in log.state.ignored]
    for one, following in pairwise(moves):
        assert following.against == one.to


@pytest.mark.parametrize("what", ["promoted", "approved", "rolled-back", "adopted", "deleted"])
def test_no_kind_moves_a_champion_that_it_was_not_decided_against(what: str) -> None:
    log = promotions("1", "2")
    stale = Entry(what=what, of="3", against="1", to="3", number=3)  # type: ignore[arg-type]
    assert not counts(log.state, stale)
