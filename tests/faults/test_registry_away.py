"""A registry on a server that goes away in the middle of a promotion, at any of its requests."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from adapt import launch, params
from adapt.registry import registry
from adapt.registry.away import RegistryAway
from adapt.tracking.store import Store
from flows.away import asking
from flows.promote import deciding, hand
from tests.support import mlflow_server, tracked
from tests.support.closure import ROOT
from tests.support.faults import fault
from tests.support.judged import evaluated, train

CUTS = range(1, 200, 8)


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with mlflow_server.running(tmp_path_factory.mktemp("mlflow")) as address:
        yield address


@pytest.fixture
def store(tmp_path: Path, address: str, monkeypatch: pytest.MonkeyPatch) -> Store:
    store = tracked.workspace(tmp_path, monkeypatch)
    shutil.rmtree(tmp_path / ".state")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    evaluated(store.root, base=0.4, tuned=0.1)
    return store


@pytest.fixture(scope="module")
def config() -> dict[str, Any]:
    return launch.configs(params.read(ROOT / "params.yaml"))


def named(store: Store, number: int) -> Store:
    """A model of its own for each cut."""
    config = store.config.model_copy(update={"model": f"model {number}"})
    train(store.root, f"weights {number}")
    return Store(store.root, config)


@fault(
    "the MLflow server is away from some request of a promotion on",
    keeps="the version and the decision, as far as they were written, each once",
    says="the registry http://... cannot be asked (...); when it answers again, "
    "`python -m flows.promote status` tells what was decided",
    then="registers nothing twice, and moves the champion if that was not done",
)
@pytest.mark.parametrize("answer_lost", [False, True])
def test_the_registry_away_in_the_middle_of_a_promotion(
    store: Store, config: dict[str, Any], answer_lost: bool
) -> None:
    for at in CUTS:
        mine = named(store, 1000 * answer_lost + at)
        run_id = tracked.retraining(mine)
        with mlflow_server.cut(at, answer_lost=answer_lost) as seen:
            try:
                with asking(mine):
                    deciding.promote(mine, config, run_id, move=True)
                assert len(seen) < at
            except RegistryAway as error:
                assert "\n" not in str(error) and "http://127.0.0.1:" in str(error)
        # A new process goes on: another store.
        again = Store(mine.root, mine.config)
        assert deciding.promote(again, config, run_id, move=True).ending in ("promoted", "champion")
        stands = registry.shown_state(again)
        assert (stands.champion, list(stands.versions)) == ("1", ["1"])
        counted = [entry.what for entry in stands.counted]
        assert counted == ["promoted"]
        if len(seen) < at:
            return
    raise AssertionError("a promotion has more requests than were tried")


@fault(
    "the MLflow server is away when a person rolls back",
    keeps="the champion",
    says="the registry http://... cannot be asked (...); when it answers again, "
    "`python -m flows.promote status` tells what was decided",
    then="rolls back",
)
def test_the_registry_away_at_a_rollback(store: Store, config: dict[str, Any]) -> None:
    mine = named(store, 5000)
    deciding.promote(mine, config, tracked.retraining(mine), move=True)
    with mlflow_server.cut(1, answer_lost=False), pytest.raises(RegistryAway):
        hand.rollback(mine, None, "Kim", "worse")
    assert registry.champion(mine) == "1"
