"""Many who decide about one registry at once: one champion, one version per set of weights."""

from pathlib import Path

import pytest

from adapt.registry import ledger, registry, settling
from adapt.tracking.store import Store
from tests.support import deciders, tracked, versions
from tests.support.faults import fault

pytestmark = pytest.mark.slow

PROCESSES, TIMES = 8, 13  # 104 decisions


@pytest.fixture
def shared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """A registry that two workspaces use, `first` and `second`."""
    (tmp_path / "first").mkdir()
    store = tracked.workspace(tmp_path / "first", monkeypatch)
    (tmp_path / "second").mkdir()
    address = f"sqlite:///{store.root}/.state/mlflow/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    return store


def places(store: Store) -> list[tuple[Path, str]]:
    """Where each process works, and the registry that all of them use."""
    address = f"sqlite:///{store.root}/.state/mlflow/mlflow.db"
    roots = [store.root, store.root.parent / "second"]
    return [(roots[number % 2], address) for number in range(PROCESSES)]


@fault(
    "eight processes of two workspaces promote and roll back a hundred times at once",
    keeps="one champion at every moment, and every decision with its number",
    says="nothing was done: somebody decided at the same time (...); look again",
    then="finds aliases and ledger in agreement",
)
def test_one_champion_at_every_moment(shared: Store) -> None:
    versions.reigning(shared, "a", "b")
    versions.made(shared, *"cdefgh")
    work = [(*place, seed, TIMES) for seed, place in enumerate(places(shared))]
    processes = deciders.together(deciders.alternate, work)
    seen = set()
    while any(process.is_alive() for process in processes):
        seen.add(str(shared.client.get_model_version_by_alias("adapt", "champion").version))
        processes[0].join(0.2)
    assert [process.exitcode for process in processes] == [0] * PROCESSES
    # 1. Read before anybody repairs anything: the last writer has left all in agreement.
    shown = versions.aliases(shared)
    stands = settling.settled(shared)
    log = stands.log
    assert [entry.number for entry in log.entries] == list(range(1, len(log.entries) + 1))
    assert len(log.entries) > PROCESSES * TIMES / 2 and log.missing == ()
    assert shown["champion"] == stands.champion
    # 2. Nobody was taken for a hand in the registry, and what an alias showed was a champion.
    assert {entry.what for entry in log.entries} <= {"promoted", "rolled-back"}
    assert seen <= stands.state.reigned
    # 3. Every move that counts starts where the last one ended.
    champion = ""
    for number, entry in enumerate(log.entries, start=1):
        if entry.number not in stands.state.ignored:
            assert entry.against == champion
            champion = entry.to
        assert ledger.fold(log.entries[:number]).champion == champion


@fault(
    "eight processes of two workspaces register the same weights at once",
    keeps="one version, the one with the lowest number",
    then="finds that version",
)
def test_one_version_per_set_of_weights(shared: Store, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "model.safetensors").write_text("w")
    work = [(*place, folder, "hash.dir") for place in places(shared)]
    processes = deciders.together(deciders.registered, work)
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * PROCESSES
    (version,) = shared.client.search_model_versions("name = 'adapt'")
    assert str(version.version) == "1" == registry.version_of(shared, "hash.dir")
    kept = list((shared.root / ".state").rglob("model.safetensors"))
    assert len(kept) == 1
