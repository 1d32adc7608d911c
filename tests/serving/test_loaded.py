"""Which model answers: a folder, or what an alias of a real registry leads to, followed."""

import dataclasses
import shutil
import threading

import pytest

from adapt.metrics import detection
from adapt.params import InputError
from adapt.registry import detectors
from adapt.serving.answerer import Answerer
from adapt.serving.asked import Asked
from adapt.serving.loaded import Loaded
from adapt.serving.source import Folder, Registered, source_of
from tests.support import doors, tiny_world, tracked


def opened(folder, version):
    return Answerer.open(folder, "cpu", version)


@pytest.fixture
def store(tmp_path, monkeypatch):
    """A registry with two versions, of which the first is the champion."""
    store = tracked.workspace(_made(tmp_path), monkeypatch)
    store.client.create_registered_model("adapt")
    for seed in range(2):
        folder = doors.version(tmp_path / f"version-{seed}", seed)
        store.client.create_model_version("adapt", str(folder))
    store.client.set_registered_model_alias("adapt", "champion", "1")
    return store


def _made(tmp_path):
    root = tmp_path / "workspace"
    root.mkdir()
    return root


def said(loaded: Loaded) -> str:
    asked = Asked(id="1", images=[tiny_world.picture(0)], question=tiny_world.QUESTIONS[0])
    return loaded.model().answer([asked])[0].text


def test_the_alias_is_followed_and_nothing_is_left(store):
    loaded = Loaded(source_of("models:/adapt@champion", store.root), opened, 60.0)
    first, place = said(loaded), loaded._place
    assert loaded.model().version == "1" and list(place.iterdir()) == []
    store.client.set_registered_model_alias("adapt", "champion", "2")
    loaded.look()
    assert loaded.model().version == "2" and said(loaded) != first and loaded.reloads == 1
    loaded.close()
    assert not place.exists()


def test_a_version_that_cannot_be_served_is_told_and_the_one_before_goes_on(store, tmp_path):
    loaded = Loaded(source_of("models:/adapt@champion", store.root), opened, 60.0)
    (tmp_path / "version-1" / "serving" / "serving.json").write_text("{")
    (tmp_path / "version-1" / "run.py").write_text("print('harm')")
    store.client.set_registered_model_alias("adapt", "champion", "2")
    loaded.look()
    assert loaded.model().version == "1" and "run.py is code" in loaded.trouble
    store.client.set_registered_model_alias("adapt", "champion", "1")
    loaded.look()
    assert loaded.trouble == "" and loaded.reloads == 0
    store.client.delete_registered_model_alias("adapt", "champion")
    loaded.look()
    assert "no such model" in loaded.trouble and said(loaded)
    loaded.close()


def test_a_registry_without_the_model_is_told_in_one_line(tmp_path, monkeypatch):
    store = tracked.workspace(_made(tmp_path), monkeypatch)
    loaded = Loaded(source_of("models:/adapt@champion", store.root), opened, 60.0)
    with pytest.raises(InputError, match=r"models:/adapt@champion: no such model; `make run`"):
        loaded.model()
    loaded.close()


def test_sources_are_told_apart(tmp_path):
    assert source_of("models:/a b@x", tmp_path) == Registered(tmp_path, "a b", "x", "")
    assert source_of("models:/adapt/3", tmp_path) == Registered(tmp_path, "adapt", "", "3")
    assert source_of("results/model", tmp_path) == Folder(tmp_path / "results/model")
    for text in ("models:/adapt", "models:/a/b@c", "models:/adapt/-1"):
        with pytest.raises(InputError, match="expected models:"):
            source_of(text, tmp_path)
    with pytest.raises(InputError, match="no such model folder"):
        Folder(tmp_path / "gone").folder("", tmp_path)


def test_a_batch_ends_on_the_model_that_it_began_with(tmp_path):
    one, other = (doors.version(tmp_path / str(seed), seed) for seed in range(2))
    shutil.copytree(one, tmp_path / "served")
    loaded = Loaded(Folder(tmp_path / "served"), opened, 60.0)
    before, model = said(loaded), loaded.model()
    loaded.answerer = opened(other, "2")
    asked = Asked(id="1", images=[tiny_world.picture(0)], question=tiny_world.QUESTIONS[0])
    found: list[str] = []
    thread = threading.Thread(target=lambda: found.append(model.answer([asked])[0].text))
    thread.start()
    thread.join()
    assert found == [before] and said(loaded) != before
    loaded.close()


def test_a_detector_that_was_fitted_again_warns_and_another_version_has_its_own(store, tmp_path):
    loaded = Loaded(source_of("models:/adapt@champion", store.root), opened, 60.0)
    asked = Asked(id="1", images=[tiny_world.picture(0)], question=tiny_world.QUESTIONS[0])
    own = loaded.model().answer([asked])[0]
    assert own.detector == "" and loaded.model().detector_version == ""
    # 1. A new version of the detector alone, for version 1.
    bolder = dataclasses.replace(doors.DETECTOR, intercept=doors.DETECTOR.intercept + 5)
    detection.write(tmp_path / "new.json", {"attention_probability": bolder}, {})
    assert detectors.register(store, (tmp_path / "new.json").read_text(), "1", {}) == "1"
    loaded.look()
    again = loaded.model().answer([asked])[0]
    assert (again.text, again.detector, loaded.reloads) == (own.text, "1", 0)
    assert all(b.risk > a.risk for a, b in zip(own.tokens, again.tokens, strict=True))
    # 2. One that cannot be read is told as long as it is the last, and fetched once.
    detectors.register(store, "{}", "1", {})
    for _ in range(2):
        loaded.look()
        assert loaded.trouble.startswith("detector 2: is no detector")
        assert loaded.model().detector_version == "1"
    # 3. It is for its version alone.
    store.client.set_registered_model_alias("adapt", "champion", "2")
    loaded.look()
    assert (loaded.model().version, loaded.model().detector_version) == ("2", "")
    assert loaded.trouble == ""
    loaded.close()
