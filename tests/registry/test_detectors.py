"""Detectors alone in the registry, and one file of a version."""

import json
import os
from pathlib import Path

import pytest

from adapt.params import InputError
from adapt.registry import detectors
from adapt.registry.download import read_file
from adapt.tracking.store import Store
from tests.support import tracked, versions


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    return tracked.workspace(tmp_path, monkeypatch)


def test_the_last_detector_of_a_version(store: Store) -> None:
    versions.made(store, "a", "b")
    assert detectors.number(store, "1") == ""
    first = json.dumps({"version": 1, "variants": {}, "note": "first"})
    assert detectors.register(store, first, "1", {"adapt.words": "20"}) == "1"
    assert detectors.register(store, "{}", "2", {}) == "2"
    second = first.replace("first", "second")
    assert detectors.register(store, second, "1", {}) == "3"
    assert [detectors.number(store, of) for of in ("1", "2", "3")] == ["3", "2", ""]
    assert detectors.content(store, "3") == second.encode()
    assert detectors.content(store, "2") == b"{}"
    made = store.client.get_model_version("adapt.detector", "1")
    assert made.tags["adapt.of"] == "1" and made.tags["adapt.words"] == "20"
    # The model has no version more for it.
    assert len(store.client.search_model_versions("name = 'adapt'")) == 2


@pytest.mark.parametrize("of", ["3", "x", "", "1; rm"])
def test_a_version_that_is_not_there(store: Store, of: str) -> None:
    versions.made(store, "a")
    with pytest.raises(InputError, match="adapt has no version"):
        detectors.register(store, "{}", of, {})


def test_one_file_of_a_version(store: Store) -> None:
    folder = store.root / "model"
    (folder / "serving").mkdir(parents=True)
    (folder / "serving" / "profile.json").write_text("{}")
    os.symlink("/etc/passwd", folder / "serving" / "link.json")
    os.mkfifo(folder / "serving" / "pipe.json")
    store.client.create_registered_model("adapt")
    store.client.create_model_version("adapt", str(folder), await_creation_for=0)

    def read(path: str, limit: int = 10) -> bytes | None:
        return read_file(store.client, "adapt", "1", path, limit)

    assert read("serving/profile.json") == b"{}"
    assert read("serving/none.json") is None and read("none/none.json") is None
    with pytest.raises(InputError, match=r"models:/adapt/1: .* has 2 bytes, more than 1"):
        read("serving/profile.json", 1)
    for path in ("serving/link.json", "serving/pipe.json", "../x", "serving"):
        with pytest.raises(InputError) as caught:
            read(path)
        assert str(caught.value).startswith("models:/adapt/1: ")
    with pytest.raises(InputError, match="does not give"):
        read_file(store.client, "adapt", "7", "serving/profile.json", 10)
