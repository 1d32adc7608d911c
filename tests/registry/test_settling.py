"""The ledger in a registry: what is written counts or not; aliases and tags show what it says."""

from pathlib import Path

import pytest

from adapt.registry import entries, registry, settling
from adapt.tracking.store import Store
from tests.support import tracked, versions


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    return tracked.workspace(tmp_path, monkeypatch)


def test_a_registry_that_is_only_looked_at_gets_no_ledger(store: Store) -> None:
    assert registry.champion(store) is None
    versions.made(store, "a")
    store.client.set_registered_model_alias("adapt", "champion", "1")
    assert registry.champion(store) == "1"
    assert store.client.search_registered_models("name = 'adapt.ledger'") == []


def test_aliases_and_tags_show_the_ledger(store: Store) -> None:
    versions.reigning(store, "a", "b", "c")
    versions.decided(store, "refused", *versions.made(store, "d"))
    assert versions.aliases(store) == {"champion": "3", "previous": "2", "challenger": "4"}
    tags = registry.tags(store, "4")
    assert (tags["adapt.decision"], tags["adapt.reasons"]) == ("refused", "refused in a test")
    assert (tags["adapt.ledger"], tags["adapt.decided"][-10:]) == ("4", ", the gate")
    stands = registry.shown_state(store)
    assert (stands.champion, stands.previous, stands.log.missing) == ("3", "2", ())
    assert [entry.number for entry in stands.log.entries] == [1, 2, 3, 4]


def test_who_decides_by_what_was_true_before_sees_that_it_does_not_count(store: Store) -> None:
    first, second, third = versions.made(store, "a", "b", "c")
    versions.decided(store, "promoted", first)
    before = settling.settled(store)
    assert versions.decided(store, "promoted", second, before)[0]
    counted, stands = versions.decided(store, "promoted", third, before)
    assert not counted and stands.champion == second
    assert versions.aliases(store)["champion"] == second


def test_a_champion_of_before_the_ledger_is_adopted_with_what_people_had_refused(
    store: Store,
) -> None:
    versions.made(store, "a", "b", "c")
    store.client.set_registered_model_alias("adapt", "champion", "1")
    store.client.set_model_version_tag("adapt", "3", "adapt.decision", "rejected")
    store.client.set_model_version_tag("adapt", "2", "adapt.decision", "refused")
    stands = settling.settled(store, begin=True)
    assert (stands.champion, stands.previous) == ("1", None)
    assert stands.said("c") == "rejected" and stands.said("b") == ""
    assert stands.log.entries[0].reasons == ("the ledger begins with version 1 as the champion",)
    assert settling.settled(store, begin=True).state.tail == 2  # once


def test_an_old_alias_that_differs_is_set_right_though_nobody_was_marked(store: Store) -> None:
    versions.reigning(store, "a", "b")
    client = store.client
    client.set_registered_model_alias("adapt", "challenger", "1")
    client.delete_registered_model_alias("adapt", "previous")
    assert registry.champion(store) == "2"
    assert versions.aliases(store) == {"champion": "2", "previous": "1", "challenger": "2"}


def test_a_stranger_in_the_ledger_is_no_entry(store: Store) -> None:
    versions.reigning(store, "a", "b")
    store.client.create_model_version("adapt.ledger", "adapt-test:/none", await_creation_for=0)
    hostile = {"what": "promoted", "of": "1\x1b[2J", "to": "1", "against": "9", "seen": "-3"}
    store.client.create_model_version("adapt.ledger", "s3://x/y", tags=hostile)
    stands = registry.shown_state(store)
    assert (stands.champion, stands.state.tail) == ("2", 4)
    assert versions.decided(store, "promoted", *versions.made(store, "c"))[1].champion == "3"


def test_an_entry_is_what_a_person_reads_on_mlflows_page(store: Store) -> None:
    versions.reigning(store, "a", "b")
    page = store.client.get_model_version(entries.name_of("adapt"), "2").description
    assert page.startswith("**promoted** version 2: champion 1 -> 2 (20")
    assert page.endswith("the gate)\n\n* promoted in a test")
