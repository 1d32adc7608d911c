"""Registered models: in and out without being loaded, aliases, and what is refused."""

from pathlib import Path
from typing import NamedTuple

import pytest

from adapt.params import InputError
from adapt.tracking import registry, runs, store
from tests.support import tracked


class Verdict(NamedTuple):
    promote: bool
    reasons: tuple[str, ...]


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return tracked.workspace(tmp_path, monkeypatch)


HASH = f"{2:032x}.dir"


def model(folder: Path, weights: str = "w") -> Path:
    (folder / "tokenizer").mkdir(parents=True)
    (folder / "model.safetensors").write_text(weights)
    (folder / "tokenizer" / "vocabulary.json").write_text("{}")
    return folder


def register(root: Path, weights: str = "w") -> tuple[str, str]:
    run_id = runs.start_retraining(root, tracked.CONFIG, {})
    folder = model(root / f"model-{weights}", weights)
    tags = {"origin": "s3://me:hunter2@bucket", "dvc.model": HASH}
    return registry.register(root, tracked.CONFIG, folder, run_id, tags), run_id


def test_register_alias_download(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(root)
    assert registry.champion(root, tracked.CONFIG) is None
    (first, run_id), (second, _) = register(root, "old"), register(root, "new")
    assert (first, second) == ("1", "2")
    registry.set_alias(root, tracked.CONFIG, registry.CHALLENGER, second)
    assert registry.champion(root, tracked.CONFIG) is None
    registry.set_alias(root, tracked.CONFIG, registry.CHAMPION, first)
    assert registry.champion(root, tracked.CONFIG) == "1"

    version = store.client(root).get_model_version("adapt", first)
    assert version.run_id == version.tags["adapt.run_id"] == run_id
    assert version.tags["dvc.model"] == HASH
    assert version.tags["origin"] == "s3://bucket"
    assert registry.version_with_tag(root, tracked.CONFIG, "dvc.model", HASH) == "2"  # the newest
    assert registry.version_with_tag(root, tracked.CONFIG, "dvc.model", "other") is None

    to = model(root / "fetched", "of an earlier time")
    assert registry.download(root, "models:/adapt@champion", to) == (to, "1")
    assert (to / "model.safetensors").read_text() == "old"
    assert sorted(p.name for p in to.rglob("*")) == [
        "model.safetensors",
        "tokenizer",
        "vocabulary.json",
    ]
    assert registry.download(root, "models:/adapt/2", root / "b")[1] == "2"
    assert (root / "b" / "model.safetensors").read_text() == "new"
    assert (
        not (root / "mlflow.db").exists() and not (root / "mlruns").exists()
    )  # no second store in the folder


def test_decision_is_written_on_the_version(root: Path) -> None:
    version, _ = register(root)
    registry.tag_decision(
        root, tracked.CONFIG, version, Verdict(False, ("failed: Hal rose.", "passed: Cover."))
    )
    tags = store.client(root).get_model_version("adapt", version).tags
    assert (tags["adapt.decision"], tags["adapt.reasons"]) == (
        "refused",
        "failed: Hal rose.\npassed: Cover.",
    )


@pytest.mark.parametrize(
    "source", ["models:/adapt@champion", "models:/adapt/7", "models:/nothing@champion"]
)
def test_missing_model_is_named_and_leaves_the_folder_alone(source: str, root: Path) -> None:
    register(root)
    to = model(root / "fetched")
    with pytest.raises(InputError, match=f"{source}: no such model in the registry sqlite:"):
        registry.download(root, source, to)
    assert (to / "model.safetensors").exists()


@pytest.mark.parametrize("source", ["models:/adapt", "models:/a/b/c", "models:/adapt@a/file"])
def test_unreadable_source(source: str, root: Path) -> None:
    with pytest.raises(InputError, match="expected models:/NAME@ALIAS or models:/NAME/VERSION"):
        registry.download(root, source, root / "fetched")


@pytest.mark.parametrize("name", ["training_args.bin", "sub/optimizer.PT", "x.pkl"])
def test_pickles_are_refused(name: str, root: Path) -> None:
    folder = model(root / "model")
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_text("")
    with pytest.raises(InputError, match=f"{name} may hold pickled code"):
        registry.register(root, tracked.CONFIG, folder, "none", {})


def test_folder_without_weights_is_refused(root: Path) -> None:
    (root / "model").mkdir()
    with pytest.raises(InputError, match=r"model: no weights \(\*.safetensors\)"):
        registry.check_weights(root / "model")
    with pytest.raises(InputError, match="no weights"):
        registry.check_weights(root / "absent")
