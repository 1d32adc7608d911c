"""Runs and models on their way to another place: cut short, moved by hand, and no place at all."""

import os
import shutil
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from mlflow import MlflowClient
from safetensors.numpy import save_file

from adapt.registry import registry
from adapt.registry.download import download
from adapt.tracking import moving
from adapt.tracking.store import Store
from adapt.tracking.transfer import Transfer
from tests.support import tracked
from tests.support.faults import fault
from tests.support.versions import decided

RUNS = 6


def filled(root: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """A store with some runs, each with a curve and a file, and a champion."""
    store = tracked.workspace(root, monkeypatch)
    for number in range(RUNS):
        run = store.client.create_run(store.experiment_id).info.run_id
        store.client.log_metric(run, "loss", 0.5, step=number)
        store.client.log_text(run, str(number), "note.txt")
        store.client.set_terminated(run)
    weights = root / "model"
    weights.mkdir()
    save_file({"quality": np.zeros(1)}, weights / "model.safetensors")
    assert decided(store, "promoted", registry.register(store, weights, run, {}))[0]
    return store


def whole(client: MlflowClient) -> None:
    """Assert that a store has everything, once."""
    experiment = client.get_experiment_by_name("adapt").experiment_id
    runs = client.search_runs([experiment])
    assert [run.info.status for run in runs] == ["FINISHED"] * RUNS
    histories = [client.get_metric_history(run.info.run_id, "loss") for run in runs]
    assert sorted(point.step for (point,) in histories) == list(range(RUNS))
    notes = [Path(run.info.artifact_uri) / "note.txt" for run in runs]
    assert sorted(note.read_text() for note in notes) == [str(n) for n in range(RUNS)]
    version = client.get_model_version_by_alias("adapt", "champion")
    assert int(version.version) == 1
    assert len(client.search_model_versions("name = 'adapt'")) == 1
    assert (Path(version.source) / "model.safetensors").is_file()


class Dead(BaseException):
    """In the place of a SIGKILL: nothing catches it, and nothing is done after it."""


CALLS = (
    "create_run",
    "log_batch",
    "log_artifacts",
    "set_terminated",
    "log_model_artifacts",
    "finalize_logged_model",
    "create_model_version",
    "set_registered_model_alias",
)


def dying_at(number: int, cut: pytest.MonkeyPatch) -> None:
    """Let the `number`-th call that writes to the new store be the last one of the process."""
    left = [number]

    def dying(kept):
        def call(*words, **named):
            left[0] -= 1
            if left[0] < 1:
                raise Dead
            return kept(*words, **named)

        return call

    for name in CALLS:
        cut.setattr(MlflowClient, name, dying(getattr(MlflowClient, name)))


@fault(
    "`python -m adapt.tracking move` is killed half-way (six places)",
    keeps="everything: the old store is only read, the new one has no run twice",
    then="moving again goes on where it was cut",
)
def test_a_move_that_is_killed_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, new = filled(tmp_path / "old", monkeypatch), tmp_path / "new"
    transfer = partial(Transfer, store.client, tracked.store_in(new), f"{new}/artifacts")
    # While ids are given, within runs (twice), with a model's files, before its version and alias.
    for call in (4, 4, 11, 17, 3, 2):
        with monkeypatch.context() as cut, pytest.raises(Dead):
            dying_at(call, cut)
            transfer().all()
    transfer().all()
    whole(tracked.store_in(new))
    whole(store.client)


@fault(
    "a copy to another folder is killed before the database, and after it with its old addresses",
    keeps="everything: the old store is only read",
    then="moving again, or opening the new store, makes its addresses right",
)
def test_a_copy_that_is_killed_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, new = filled(tmp_path / "old", monkeypatch), tmp_path / "new"

    def dies(*_: object) -> None:
        raise Dead

    for place in ("note_of", "rehome"):
        with monkeypatch.context() as cut:
            # `rehome` is called for the old store first, then for the copy.
            cut.setattr(moving, place, dies if place == "note_of" else _second(dies))
            with pytest.raises(Dead):
                moving.move(store.root, str(new))
    shutil.rmtree(store.root)
    whole(tracked.store_in(new))


def _second(then):
    calls = []

    def call(*words):
        calls.append(words)
        return then(*words) if len(calls) == 2 else False

    return call


@fault(
    "the workspace is moved to another folder by `mv`",
    keeps="all runs, their files, the registry and the champion",
    then="retraining, registry and artifacts work at the new place; nothing is written to the old",
)
def test_a_workspace_that_is_moved_by_hand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before, after = tmp_path / "before", tmp_path / "some where" / "after"
    filled(before, monkeypatch)
    after.parent.mkdir()
    os.rename(before, after)
    store = Store(after, tracked.CONFIG)
    whole(store.client)
    to, version = download(store.client, "models:/adapt@champion", tmp_path / "fetched")
    assert version == "1" and (to / "model.safetensors").is_file()
    # What is new goes to the new place as well: files of a run, and a version.
    run = store.client.create_run(store.experiment_id).info.run_id
    store.client.log_text(run, "new", "note.txt")
    assert registry.register(store, after / "model", run, {}) == "2"
    assert not before.exists()
    assert (after / ".state/mlflow/artifacts" / run / "artifacts" / "note.txt").is_file()
