"""Runs: what a stage's and a retraining's run hold, how they end, and what must never be in them."""

import dataclasses
import json
import os
import signal
import subprocess
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from adapt.params import shared
from adapt.tracking import results, runs, store
from tests.support import tracked


@dataclasses.dataclass(frozen=True, kw_only=True)
class Anchor:
    tokens: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    beta: float
    layers: tuple[int, ...]
    source: str
    anchor: Anchor = shared()
    seed: int = shared()


CONFIG = Config(
    beta=0.5, layers=(1, 2), source="https://me:hunter2@host/model", anchor=Anchor(tokens=5), seed=7
)


class Verdict(NamedTuple):
    promote: bool
    reasons: tuple[str, ...]


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return tracked.workspace(tmp_path, monkeypatch)


def found_runs(root: Path, query: str = "") -> list[Any]:
    client = store.client(root)
    return client.search_runs([store.experiment(client, tracked.CONFIG, root)], query)


def values(run: Any, key: str, root: Path) -> list[tuple[int, float]]:
    return [(p.step, p.value) for p in store.client(root).get_metric_history(run.info.run_id, key)]


def files(root: Path, run: Any) -> list[str]:
    return sorted(f.path for f in store.client(root).list_artifacts(run.info.run_id))


def test_stage_run_has_parameters_tags_and_curves_once(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parent = runs.start_retraining(root, tracked.CONFIG, {})
    monkeypatch.setenv("ADAPT_PARENT_RUN", parent)
    monkeypatch.setenv("ADAPT_FLOW_RUN", "flow-1")
    monkeypatch.setenv("DVC_EXP_NAME", "exp-1")
    folder = tracked.results(root) / "train"
    with runs.stage_run("train", CONFIG, tracked.CONFIG, root) as open_run:
        open_run.log_step(1, {"loss": 0.7})
        open_run.log_step(2, {"loss": 0.5})
        open_run.log_results(folder)
    (run,) = found_runs(root, "tags.`adapt.stage` = 'train'")
    assert (run.info.run_name, run.info.status) == ("train", "FINISHED")
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
    assert values(run, "train/loss", root) == [(1, 0.7), (2, 0.5)]
    assert values(run, "train/margin", root) == [
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
def test_stage_that_does_not_come_to_its_end(error: BaseException, status: str, root: Path) -> None:
    with pytest.raises(type(error)), runs.stage_run("train", CONFIG, tracked.CONFIG, root):
        raise error
    (run,) = found_runs(root)
    assert run.info.status == status
    told = run.data.tags.get("adapt.error")
    assert told == (
        "base.source: https://host/model?token=*** not found" if "hunter2" in str(error) else None
    )


def test_terminated_stage_is_killed_and_the_signal_works_as_before_again(root: Path) -> None:
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as caught, runs.stage_run("train", CONFIG, tracked.CONFIG, root):
        os.kill(os.getpid(), signal.SIGTERM)
        signal.pause()
    assert caught.value.code == 143
    assert found_runs(root)[0].info.status == "KILLED"
    assert signal.getsignal(signal.SIGTERM) == before


def test_evaluate_logs_curves_pictures_and_answers(root: Path) -> None:
    folder = tracked.results(root) / "evaluate"
    with runs.stage_run("evaluate", CONFIG, tracked.CONFIG, root) as open_run:
        open_run.log_results(folder)
    (run,) = found_runs(root)
    assert values(run, "curves/mass/tuned", root) == [(0, 0.8), (1, 0.7)]
    assert values(run, "curves/mass/tuned_grounded", root) == [(1, 0.75)]
    assert run.data.metrics["test/base/hal"] == 50.0
    assert files(root, run) == [
        "before_after.png",
        "images",
        "panel_scene_1.png",
        "responses_first_200.json",
    ]
    path = store.client(root).download_artifacts(run.info.run_id, "responses_first_200.json")
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


def test_retraining_holds_what_one_compares(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ADAPT_SECRET_PASSWORD", "hunter2")
    folder = tracked.results(root)
    parent = runs.start_retraining(
        root, tracked.CONFIG, {"adapt.reason": "s3://me:hunter2@bucket/new"}
    )
    monkeypatch.setenv("ADAPT_PARENT_RUN", parent)
    with runs.stage_run("train", CONFIG, tracked.CONFIG, root) as open_run:
        open_run.log_results(folder / "train")
    verdict = Verdict(True, ("passed: Hal fell.", "passed: Cover held."))
    runs.finish_retraining(
        root, parent, folder, verdict, tracked.STAGES, {"adapt.model_version": "3"}
    )

    children = {
        run.data.tags["adapt.stage"]: run
        for run in found_runs(root, f"tags.mlflow.parentRunId = '{parent}'")
    }
    assert sorted(children) == sorted(tracked.STAGES)
    assert {s: r.data.tags.get("adapt.cached") for s, r in children.items()} == {
        s: None if how == "ran" else "true" for s, how in tracked.STAGES.items()
    }
    assert children["data"].data.tags["adapt.dvc_stage_hash"] == results.stage_hash(root, "data")
    assert children["evaluate"].data.params == {"evaluate.bootstrap": "10"}

    run = store.client(root).get_run(parent)
    assert (run.info.run_name, run.info.status) == ("retrain 1", "FINISHED")
    assert run.data.params == {
        "seed": "7",
        "train.beta": "0.5",
        "train.steps": "2",
        "evaluate.bootstrap": "10",
        "anchor.anchor_tokens": "5",
    }
    assert run.data.metrics["before_after/hal_before"] == 50.0
    assert run.data.metrics["before_after/hal_after"] == run.data.metrics["test/tuned/hal"] == 0.0
    assert values(run, "train/loss", root) == [(1, 0.7), (2, 0.5)]
    assert values(run, "curves/mass/tuned", root) == [(0, 0.8), (1, 0.7)]
    tags = run.data.tags
    assert (tags["adapt.promoted"], tags["adapt.model_version"]) == ("true", "3")
    assert tags["adapt.reasons"] == "passed: Hal fell.\npassed: Cover held."
    assert tags["mlflow.note.content"].startswith("**Promoted**")
    assert tags["dvc.train"] == results.stage_hash(root, "train") != tags["dvc.data"]
    assert "dvc.evaluate" not in tags  # not in this dvc.lock
    assert files(root, run) == ["before_after.png", "panel_scene_1.png", "responses_first_200.json"]
    assert [
        (i.dataset.name, i.dataset.digest, i.tags[0].value) for i in run.inputs.dataset_inputs
    ] == [(split, "0" * 32 + ".dir", context) for split, context in results.SPLITS.items()]
    assert json.loads(run.inputs.dataset_inputs[2].dataset.profile) == {"rows": 3}
    everything = [str(r.to_dictionary()) for r in found_runs(root)]
    assert not any("hunter2" in text for text in everything)


def test_retrainings_are_numbered_and_may_fail(root: Path) -> None:
    first, second = (runs.start_retraining(root, tracked.CONFIG, {}) for _ in range(2))
    runs.fail_retraining(root, first, "stage train: no weights")
    runs.fail_retraining(root, second, "cancelled", killed=True)
    found = {
        run.info.run_name: (run.info.status, run.data.tags["adapt.error"])
        for run in found_runs(root)
    }
    assert found == {
        "retrain 1": ("FAILED", "stage train: no weights"),
        "retrain 2": ("KILLED", "cancelled"),
    }


def test_stage_that_was_tried_again_has_one_finished_run(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tracked.results(root)
    parent = runs.start_retraining(root, tracked.CONFIG, {})
    monkeypatch.setenv("ADAPT_PARENT_RUN", parent)
    with pytest.raises(RuntimeError), runs.stage_run("data", CONFIG, tracked.CONFIG, root):
        raise RuntimeError("disk full")
    runs.finish_retraining(root, parent, folder, None, {"data": "ran"})
    found = {
        run.info.status: run.data.tags.get("adapt.cached")
        for run in found_runs(root, "tags.`adapt.stage` = 'data'")
    }
    assert found == {"FAILED": None, "FINISHED": "false"}
    assert "adapt.promoted" not in store.client(root).get_run(parent).data.tags


def test_revision_says_whether_the_code_was_changed(tmp_path: Path) -> None:
    assert runs.revision(tmp_path) == {}
    identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
    for words in (["init", "-q"], ["commit", "-q", "--allow-empty", "-m", "first"]):
        subprocess.run(["git", *identity, *words], cwd=tmp_path, check=True)
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "metrics.json").write_text("{}")
    clean = runs.revision(tmp_path)
    assert (len(clean["mlflow.source.git.commit"]), clean["adapt.git_dirty"]) == (40, "false")
    (tmp_path / "code.py").write_text("")
    assert runs.revision(tmp_path) == {**clean, "adapt.git_dirty": "true"}
