"""Registered models: in and out without being loaded, aliases, and what is refused."""

import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from adapt.params import InputError
from adapt.registry import contents, registry
from adapt.registry.download import download
from adapt.tracking import runs
from adapt.tracking.store import Store
from tests.support import tracked


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    return tracked.workspace(tmp_path, monkeypatch)


HASHES = {"w": f"{1:032x}.dir", "old": f"{2:032x}.dir", "new": f"{3:032x}.dir"}


def model(folder: Path, weights: str = "w") -> Path:
    (folder / "tokenizer").mkdir(parents=True)
    (folder / "model.safetensors").write_text(weights)
    (folder / "tokenizer" / "vocabulary.json").write_text("{}")
    return folder


def register(store: Store, weights: str = "w") -> tuple[str, str]:
    run_id = runs.recorded(store, tracked.retraining(store))
    folder = model(store.root / f"model-{weights}", weights)
    tags = {"origin": "s3://me:hunter2@bucket", "dvc.model": HASHES[weights]}
    return registry.register(store, folder, run_id, tags), run_id


def test_register_alias_download(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    root = store.root
    monkeypatch.chdir(root)
    assert registry.champion(store) is None
    (first, run_id), (second, _) = register(store, "old"), register(store, "new")
    assert (first, second) == ("1", "2")
    store.client.set_registered_model_alias("adapt", "challenger", second)
    assert registry.champion(store) is None
    store.client.set_registered_model_alias("adapt", "champion", first)
    assert registry.champion(store) == "1"

    version = store.client.get_model_version("adapt", first)
    assert version.run_id == version.tags["adapt.run_id"] == run_id
    assert version.tags["dvc.model"] == HASHES["old"]
    assert version.tags["origin"] == "s3://bucket"
    assert registry.version_of(store, HASHES["new"]) == "2"
    assert registry.version_of(store, "other") is None

    to = model(store.root / "fetched", "of an earlier time")
    assert download(store.client, "models:/adapt@champion", to) == (to, "1")
    assert (to / "model.safetensors").read_text() == "old"
    assert sorted(p.name for p in to.rglob("*")) == [
        "model.safetensors",
        "tokenizer",
        "vocabulary.json",
    ]
    assert download(store.client, "models:/adapt/2", root / "b")[1] == "2"
    assert (root / "b" / "model.safetensors").read_text() == "new"
    assert (
        not (root / "mlflow.db").exists() and not (root / "mlruns").exists()
    )  # no second store in the folder


def test_weights_of_one_hash_are_one_version(store: Store) -> None:
    assert register(store)[0] == "1"
    shutil.rmtree(store.root / "model-w")
    assert register(store)[0] == "1"
    assert len(store.client.search_model_versions("name = 'adapt'")) == 1
    assert registry.version_of(store, "") is None


def test_a_version_that_was_asked_for_twice_keeps_its_files(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    make = store.client.create_model_version

    def answered_late(*words: object, **named: object) -> object:
        make(*words, **named)  # its answer is lost, and a client sends the request again
        return make(*words, **named)

    monkeypatch.setattr(store.client, "create_model_version", answered_late)
    assert register(store)[0] == "1"
    assert [one.version for one in store.client.search_model_versions("name = 'adapt'")] == [1]
    to = store.root / "fetched"
    assert download(store.client, "models:/adapt/1", to) == (to, "1")


def test_what_an_alias_points_to(store: Store) -> None:
    assert registry.version_behind(store, "adapt", "champion") is None  # no such model
    version, _ = register(store)
    assert registry.version_behind(store, "adapt", "champion") is None  # no such alias
    store.client.set_registered_model_alias("adapt", "champion", version)
    assert registry.version_behind(store, "adapt", "champion") == version


@pytest.mark.parametrize(
    "source", ["models:/adapt@champion", "models:/adapt/7", "models:/nothing@champion"]
)
def test_missing_model_is_named_and_leaves_the_folder_alone(source: str, store: Store) -> None:
    register(store)
    to = model(store.root / "fetched")
    with pytest.raises(InputError, match=f"{source}: no such model in the registry sqlite:"):
        download(store.client, source, to)
    assert (to / "model.safetensors").exists()


@pytest.mark.parametrize("source", ["models:/adapt", "models:/a/b/c", "models:/adapt@a/file"])
def test_unreadable_source(source: str, store: Store) -> None:
    with pytest.raises(InputError, match="expected models:/NAME@ALIAS or models:/NAME/VERSION"):
        download(store.client, source, store.root / "fetched")


@pytest.mark.parametrize("name", ["training_args.bin", "sub/optimizer.PT", "x.pkl"])
def test_pickles_are_refused(name: str, store: Store) -> None:
    folder = model(store.root / "model")
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_text("")
    with pytest.raises(InputError, match=f"{name} may hold pickled code"):
        registry.register(store, folder, "none", {})


def test_folder_without_weights_is_refused(store: Store) -> None:
    (store.root / "model").mkdir()
    with pytest.raises(InputError, match=r"model: no weights \(\*.safetensors\)"):
        contents.check_weights(store.root / "model")
    with pytest.raises(InputError, match="no weights"):
        contents.check_weights(store.root / "absent")


def a_link_out(folder: Path) -> None:
    (folder / "secret.json").symlink_to("/etc/hostname")


def a_link_to_a_folder(folder: Path) -> None:
    (folder / "more").symlink_to(folder.parent, target_is_directory=True)


def a_link_to_nothing(folder: Path) -> None:
    (folder / "model-2.safetensors").symlink_to(folder / "absent.safetensors")


def a_pipe(folder: Path) -> None:
    os.mkfifo(folder / "pipe.json")


def files(name: str) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("x")

    return write


@pytest.mark.parametrize(
    ("plant", "problem"),
    [
        (a_link_out, "secret.json is a link out of the folder"),
        (a_link_to_a_folder, "more is a link out of the folder"),
        (a_link_to_nothing, "model-2.safetensors is a link out of the folder"),
        (a_pipe, "pipe.json is no part of a model"),
        (files("modeling_x.py"), "modeling_x.py is code"),
        (files("tokenizer/run.SH"), "tokenizer/run.SH is code"),
        (files(".git/config"), ".git/config is hidden"),
        (files(".env.json"), ".env.json is hidden"),
        (files("model.gguf"), "model.gguf is no part of a model"),
    ],
)
def test_a_version_holds_a_model_and_nothing_else(
    tmp_path: Path, plant: Callable[[Path], None], problem: str
) -> None:
    folder = model(tmp_path / "model")
    (folder / "link.json").symlink_to(folder / "tokenizer/vocabulary.json")  # that stays inside
    contents.check_weights(folder)
    plant(folder)
    with pytest.raises(InputError, match=re.escape(problem)):
        contents.check_weights(folder)
