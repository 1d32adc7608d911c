"""Runs: what those of stages and retrainings hold, how they end, and what must never be in them."""

import json
import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from adapt.params import Settings, Shared
from adapt.tracking import lineage, results, runs
from adapt.tracking.store import Store
from tests.support import tracked


class Anchor(Settings):
    anchor_tokens: int


class Config(Settings):
    beta: float
    layers: tuple[int, ...]
    source: str
    anchor: Shared[Anchor]
    seed: Shared[int]


CONFIG = Config(
    beta=0.5,
    layers=(1, 2),
    source="https://me:hunter2@host/model",
    anchor=Anchor(anchor_tokens=5),
    seed=7,
)


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    return tracked.workspace(tmp_path, monkeypatch)


def all_runs(store: Store, query: str = "") -> list[Any]:
    """What MLflow has, once all is sent that was recorded."""
    tracked.sent(store)
    return store.client.search_runs([store.experiment_id], query)


def values(run: Any, key: str, store: Store) -> list[tuple[int, float]]:
    return [(p.step, p.value) for p in store.client.get_metric_history(run.info.run_id, key)]


def files(store: Store, run: Any) -> list[str]:
    return sorted(f.path for f in store.client.list_artifacts(run.info.run_id))


def test_stage_run_has_parameters_tags_and_curves_once(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    parent = runs.start_retraining(store, "tonight", {})
    monkeypatch.setenv("ADAPT_PARENT_RUN", parent)
    monkeypatch.setenv("ADAPT_FLOW_RUN", "flow-1")
    monkeypatch.setenv("DVC_EXP_NAME", "exp-1")
    folder = tracked.results(store.root) / "train"
    with runs.stage_run(store, "train", CONFIG) as open_run:
        open_run.log_step(1, {"loss": 0.7})
        open_run.log_step(2, {"loss": 0.5})
        open_run.log_results(folder)
    (run,) = all_runs(store, "tags.`adapt.stage` = 'train'")
    assert (run.info.run_name, run.info.status) == ("train", "FINISHED")
    parent = runs.recorded(store, parent)
    assert run.data.params == {
        "train.beta": "0.5",
        "train.layers": "[1, 2]",
        "train.source": "https://host/model",
        "anchor.anchor_tokens": "5",
        "seed": "7",
    }
    tags = run.data.tags
    assert (tags["mlflow.parentRunId"], tags["adapt.flow_run"], tags["dvc.exp_name"]) == (
        parent,
        "flow-1",
        "exp-1",
    )
    assert values(run, "train/loss", store) == [(1, 0.7), (2, 0.5)]
    assert values(run, "train/margin", store) == [
        (2, 0.25)
    ]  # an empty cell and a column of words are no points
    assert run.data.metrics == {
        "train/loss": 0.5,
        "train/margin": 0.25,
        "train/pairs": 2,
    }  # no second loss, 0.6


@pytest.mark.parametrize(
    "error, status",
    [
        (tracked.config_error(), "FAILED"),
        (RuntimeError("a bug"), "FAILED"),
        (KeyboardInterrupt(), "KILLED"),
        (SystemExit(1), "KILLED"),
    ],
)
def test_stage_that_does_not_come_to_its_end(
    error: BaseException, status: str, store: Store
) -> None:
    with pytest.raises(type(error)), runs.stage_run(store, "train", CONFIG):
        raise error
    (run,) = all_runs(store)
    assert run.info.status == status
    told = run.data.tags.get("adapt.error")
    assert told == (
        "base.source: https://host/model?token=*** not found" if "hunter2" in str(error) else None
    )


def test_terminated_stage_is_killed_and_the_signal_works_as_before_again(store: Store) -> None:
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as caught, runs.stage_run(store, "train", CONFIG):
        os.kill(os.getpid(), signal.SIGTERM)
        signal.pause()
    assert caught.value.code == 143
    assert all_runs(store)[0].info.status == "KILLED"
    assert signal.getsignal(signal.SIGTERM) == before


def test_evaluate_logs_curves_pictures_and_answers(store: Store) -> None:
    folder = tracked.results(store.root) / "evaluate"
    with runs.stage_run(store, "evaluate", CONFIG) as open_run:
        open_run.log_results(folder)
    (run,) = all_runs(store)
    assert values(run, "curves/mass/tuned", store) == [(0, 0.8), (1, 0.7)]
    assert values(run, "curves/mass/tuned_grounded", store) == [(1, 0.75)]
    assert run.data.metrics["test/base/hal"] == 50.0
    assert files(store, run) == [
        "before_after.png",
        "images",
        "panel_scene_1-9ecedbbabb26.png",
        "responses_first_200.json",
    ]
    path = store.client.download_artifacts(run.info.run_id, "responses_first_200.json")
    table = json.loads(Path(path).read_text())
    assert table["columns"] == ["id", "kind", "question", "reference", "base", "tuned"]
    assert table["data"][0] == [
        "a",
        "describe",
        "what is there?",
        "a house",
        "a house and a **dog**",
        "a house",
    ]


def test_retraining_holds_what_one_compares(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ADAPT_SECRET_PASSWORD", "hunter2")
    folder = tracked.results(store.root)
    (folder / "answer").mkdir()
    (folder / "answer" / "steering.csv").write_text("arm,chosen,alpha\ntuned,True,1.8\n")
    parent = runs.start_retraining(store, "tonight", {"adapt.reason": "s3://me:hunter2@bucket/new"})
    monkeypatch.setenv("ADAPT_PARENT_RUN", parent)
    with runs.stage_run(store, "train", CONFIG) as open_run:
        open_run.log_results(folder / "train")
    tags = {"adapt.promoted": "true", "adapt.model_version": "3"}
    runs.finish_retraining(store, parent, tracked.STAGES, tags)

    tracked.sent(store)
    parent = runs.recorded(store, parent)
    children = {
        run.data.tags["adapt.stage"]: run
        for run in all_runs(store, f"tags.mlflow.parentRunId = '{parent}'")
    }
    assert sorted(children) == sorted(tracked.STAGES)
    assert {s: r.data.tags.get("adapt.cached") for s, r in children.items()} == {
        s: None if how == "ran" else "true" for s, how in tracked.STAGES.items()
    }
    assert children["data"].data.tags["adapt.dvc_stage_hash"] == lineage.stage_hash(
        store.root, "data"
    )
    assert children["evaluate"].data.params == {"evaluate.bootstrap": "10"}

    run = store.client.get_run(parent)
    assert (run.info.run_name, run.info.status) == ("tonight", "FINISHED")
    assert run.data.params == {
        "seed": "7",
        "train.beta": "0.5",
        "train.steps": "2",
        "evaluate.bootstrap": "10",
        "anchor.anchor_tokens": "5",
    }
    assert run.data.metrics["before_after/hal_before"] == 50.0
    assert run.data.metrics["before_after/hal_after"] == run.data.metrics["test/tuned/hal"] == 0.0
    assert values(run, "train/loss", store) == [(1, 0.7), (2, 0.5)]
    assert values(run, "curves/mass/tuned", store) == [(0, 0.8), (1, 0.7)]
    tags = run.data.tags
    assert (tags["adapt.promoted"], tags["adapt.model_version"]) == ("true", "3")
    assert tags["dvc.train"] == lineage.stage_hash(store.root, "train") != tags["dvc.data"]
    assert "dvc.evaluate" not in tags  # not in this dvc.lock
    assert files(store, run) == [
        "before_after.png",
        "panel_scene_1-9ecedbbabb26.png",
        "responses_first_200.json",
        "steering.csv",
    ]
    assert [
        (i.dataset.name, i.dataset.digest, i.tags[0].value) for i in run.inputs.dataset_inputs
    ] == [(split, "0" * 32 + ".dir", context) for split, context in results.SPLITS.items()]
    assert json.loads(run.inputs.dataset_inputs[2].dataset.profile) == {"rows": 3}
    everything = [str(r.to_dictionary()) for r in all_runs(store)]
    assert not any("hunter2" in text for text in everything)


def test_retrainings_are_named_and_may_fail(store: Store) -> None:
    first, second = (runs.start_retraining(store, f"night {n}", {}) for n in (1, 2))
    runs.fail_retraining(store, first, "stage train: no weights")
    runs.fail_retraining(store, second, "cancelled", killed=True)
    found = {
        run.info.run_name: (run.info.status, run.data.tags["adapt.error"])
        for run in all_runs(store)
    }
    assert found == {
        "night 1": ("FAILED", "stage train: no weights"),
        "night 2": ("KILLED", "cancelled"),
    }


def test_stage_that_was_tried_again_has_one_finished_run(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    tracked.results(store.root)
    parent = runs.start_retraining(store, "tonight", {})
    monkeypatch.setenv("ADAPT_PARENT_RUN", parent)
    with pytest.raises(RuntimeError), runs.stage_run(store, "data", CONFIG):
        raise RuntimeError("disk full")
    runs.finish_retraining(store, parent, {"data": "ran"}, {})
    found = {
        run.info.status: run.data.tags.get("adapt.cached")
        for run in all_runs(store, "tags.`adapt.stage` = 'data'")
    }
    assert found == {"FAILED": None, "FINISHED": "false"}
    found = store.client.get_run(runs.recorded(store, parent))
    assert "adapt.promoted" not in found.data.tags


def test_revision_says_whether_the_code_was_changed(tmp_path: Path) -> None:
    assert lineage.revision(tmp_path) == {}
    identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
    for words in (["init", "-q"], ["commit", "-q", "--allow-empty", "-m", "first"]):
        subprocess.run(["git", *identity, *words], cwd=tmp_path, check=True)
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "metrics.json").write_text("{}")
    clean = lineage.revision(tmp_path)
    assert (len(clean["mlflow.source.git.commit"]), clean["adapt.git_dirty"]) == (40, "false")
    (tmp_path / "code.py").write_text("")
    assert lineage.revision(tmp_path) == {**clean, "adapt.git_dirty": "true"}
