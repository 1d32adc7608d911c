"""What a killed process or a person leaves in the registry, and what the next one makes of it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from adapt.registry import registry, settling
from adapt.tracking.store import Store
from tests.support import deciders, tracked, versions
from tests.support.faults import fault


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """Versions 1, 2 and 3 have been champion in turn."""
    store = tracked.workspace(tmp_path, monkeypatch)
    versions.reigning(store, "a", "b", "c")
    return store


def killed(store: Store, work: Callable[..., Any], version: str) -> None:
    address = f"sqlite:///{store.root}/.state/mlflow/mlflow.db"
    (process,) = deciders.together(work, [(store.root, address, version)])
    process.join()
    assert process.exitcode == -9


def last(store: Store) -> tuple[str, str, str, str]:
    """The last entry: what, and the champion before and after."""
    entry = registry.shown_state(store).log.entries[-1]
    return entry.what, entry.against, entry.to, entry.reasons[0] if entry.reasons else ""


def left_no_mark(store: Store) -> bool:
    tags = store.client.get_registered_model("adapt.ledger").tags
    return not any(key.startswith("adapt.moving.") for key in tags)


@fault(
    "a promotion is killed when its decision is written, before the alias has moved",
    keeps="the decision",
    then="moves the alias, and finds the reasons on the version",
)
def test_killed_between_entry_and_alias(store: Store) -> None:
    (fourth,) = versions.made(store, "d")
    killed(store, deciders.killed_before_the_alias, fourth)
    assert versions.aliases(store)["champion"] == "3"
    assert registry.champion(store) == fourth
    assert versions.aliases(store) == {"champion": "4", "previous": "3", "challenger": "4"}
    assert registry.tags(store, fourth)["adapt.decision"] == "promoted"
    assert last(store)[:3] == ("promoted", "3", "4") and left_no_mark(store)


@fault(
    "a promotion is killed when the alias has moved",
    keeps="the decision and the alias",
    then="a person's move after that is still seen as one",
)
def test_killed_after_the_alias(store: Store) -> None:
    (fourth,) = versions.made(store, "d")
    killed(store, deciders.killed_at_the_alias, fourth)
    assert registry.champion(store) == fourth and left_no_mark(store)
    store.client.set_registered_model_alias("adapt", "champion", "3")
    assert registry.champion(store) == "3"
    assert last(store)[:3] == ("adopted", "4", "3")


@fault(
    "a slow process sets the alias to a champion that has been overtaken",
    keeps="the champion of the ledger",
    then="finds the alias in agreement",
)
def test_a_slow_writer_corrects_itself(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    fourth, fifth = versions.made(store, "d", "e")
    move, others = settling._set, [fifth]

    def slowly(client: Any, model: str, alias: str, version: str) -> None:
        """Before the first alias is set, somebody else promotes the next version and is done."""
        if others and alias == "champion":
            assert versions.decided(Store(store.root, tracked.CONFIG), "promoted", others.pop())[0]
        move(client, model, alias, version)

    monkeypatch.setattr(settling, "_set", slowly)
    counted, stands = versions.decided(store, "promoted", fourth)
    assert counted and stands.champion == fifth
    assert versions.aliases(store) == {"champion": "5", "previous": "4", "challenger": "5"}
    assert {entry.what for entry in stands.log.entries} == {"promoted"} and left_no_mark(store)


@fault(
    "a person moves the champion's alias back on MLflow's page",
    keeps="what the person wanted: what it was moved from counts as rolled back",
    says="adapt: the alias champion was moved by hand to version 2; it was at version 3",
    then="does not promote those weights again",
)
def test_an_alias_moved_by_hand(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    store.client.set_registered_model_alias("adapt", "champion", "2")
    stands = registry.shown_state(store)
    assert (stands.champion, stands.previous, stands.said("c")) == ("2", "1", "rolled-back")
    said = "adapt: the alias champion was moved by hand to version 2; it was at version 3"
    assert caplog.messages == [said]
    assert not versions.decided(store, "promoted", "3")[0]
    assert registry.champion(store) == "2" == versions.aliases(store)["champion"]


@fault(
    "a person takes the champion's alias away on MLflow's page",
    keeps="that there is no champion; a rollback leads to the one before",
    says="adapt: the alias champion was taken away by hand; it was at version 3",
    then="compares with the base, as before the first promotion",
)
def test_an_alias_taken_away_by_hand(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    store.client.delete_registered_model_alias("adapt", "champion")
    stands = registry.shown_state(store)
    assert (stands.champion, stands.previous, stands.said("c")) == (None, "2", "rolled-back")
    said = "adapt: the alias champion was taken away by hand; it was at version 3"
    assert caplog.messages == [said]
    assert "champion" not in versions.aliases(store)


@fault(
    "a person deletes the champion's version",
    keeps="the champion before, and that the deleted weights stay out",
    says="adapt: version 3 was deleted by hand; version 2 is champion again",
    then="neither registers nor promotes the deleted weights again",
)
def test_a_deleted_champion(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    store.client.delete_model_version("adapt", "3")
    stands = registry.shown_state(store)
    assert (stands.champion, stands.previous, stands.said("c")) == ("2", "1", "deleted")
    said = "adapt: version 3 was deleted by hand; version 2 is champion again"
    assert caplog.messages == [said]
    (again,) = versions.made(store, "c")
    assert not versions.decided(store, "promoted", again)[0]
    assert versions.aliases(store)["champion"] == "2"


@fault(
    "a person deletes the ledger",
    keeps="the champion, and what people had taken back, which the versions' tags tell too",
    says="adapt: the ledger was deleted by hand; a new one begins with version 2 as the champion",
    then="goes on from there",
)
def test_a_deleted_ledger(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    store.client.set_registered_model_alias("adapt", "champion", "2")
    registry.champion(store)
    store.client.delete_registered_model("adapt.ledger")
    caplog.clear()
    stands = settling.settled(store, begin=True)
    assert caplog.messages[0] == (
        "adapt: the ledger was deleted by hand; a new one begins with version 2 as the champion"
    )
    assert stands.champion == "2" and stands.said("c") == "rejected"
    assert not versions.decided(store, "promoted", "3")[0]


@fault(
    "a person deletes an entry of the ledger",
    keeps="the champion that the alias shows",
    says="adapt.ledger: deleted by hand, and not counted: entry 2",
    then="goes on with what is left",
)
def test_a_deleted_entry(store: Store) -> None:
    store.client.delete_model_version("adapt.ledger", "2")
    stands = registry.shown_state(store)
    assert (stands.champion, stands.log.missing) == ("3", (2,))
    assert last(store)[:3] == ("adopted", "1", "3")  # nothing led from 1 to 3 any more
    assert versions.decided(store, "promoted", *versions.made(store, "d"))[1].champion == "4"


@fault(
    "a person deletes the whole registered model",
    keeps="the ledger: what was taken back stays out",
    says="adapt: version 3 was deleted by hand; there is no champion",
    then="registers again, from version 1, and compares with the base",
)
def test_a_deleted_model(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    store.client.delete_registered_model("adapt")
    assert registry.champion(store) is None
    said = "adapt: version 3 was deleted by hand; there is no champion"
    assert caplog.messages == [said]
    first, second = versions.made(store, "c", "d")
    assert not versions.decided(store, "promoted", first)[0]
    stands = registry.shown_state(store)
    assert stands.previous is None  # not the new version 1, which is another model
    assert versions.decided(store, "promoted", second)[1].champion == "2"
    assert versions.aliases(store) == {"champion": "2", "challenger": "2"}
