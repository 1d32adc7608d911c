"""Moving a store: everything arrives under the same numbers, and the old one stays as it was."""

import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mlflow import MlflowClient
from mlflow.entities import Metric
from safetensors.numpy import save_file

from adapt.params import InputError
from adapt.registry import entries, registry
from adapt.tracking import journal
from adapt.tracking.__main__ import main
from adapt.tracking.moving import move
from adapt.tracking.store import Store, opened
from adapt.tracking.transfer import ORIGIN, Transfer
from tests.support import tracked
from tests.support.versions import decided

Moved = Callable[[Path, Path], MlflowClient]


@pytest.fixture
def full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """A store with a parent and a child, curves, files, and three versions of which one is gone."""
    store = tracked.workspace(tmp_path / "old", monkeypatch)
    client, experiment = store.client, store.experiment_id
    client.set_experiment_tag(experiment, "mlflow.note.content", "what this is")
    parent = client.create_run(experiment, run_name="night").info.run_id
    child = client.create_run(experiment, tags={"mlflow.parentRunId": parent}).info.run_id
    client.log_batch(child, [Metric("train/loss", 1 / (n + 1), 1700 + n, n) for n in range(1200)])
    client.log_metric(child, "worst", float("nan"), step=3)
    client.log_param(child, "train.steps", "1200")
    client.log_text(child, "a picture", "panels/scene 1.txt")
    for run, end in ((parent, "FINISHED"), (child, "FAILED")):
        client.set_terminated(run, end, 4321)
    weights = tmp_path / "model"
    weights.mkdir()
    for quality in range(3):
        save_file({"quality": np.array([quality])}, weights / "model.safetensors")
        registry.register(store, weights, child, {"dvc.model": f"m{quality}"})
    client.delete_model_version("adapt", "2")
    client.update_registered_model("adapt", "a model that hallucinates less")
    client.update_model_version("adapt", "3", "the third")
    for version in ("1", "3"):
        assert decided(store, "promoted", version)[0]
    return store


def as_file(old: Path, new: Path) -> MlflowClient:
    move(old, str(new))
    return opened(f"sqlite:///{new}/mlflow.db")


def by_client(old: Path, new: Path) -> MlflowClient:
    """As to a server, which gives ids of its own."""
    target = tracked.store_in(new)
    Transfer(opened(f"sqlite:///{old}/.state/mlflow/mlflow.db"), target, f"{new}/artifacts").all()
    return target


BOTH = pytest.mark.parametrize("moved", [as_file, by_client])


def content(client: MlflowClient, root: Path) -> dict[str, Any]:
    """All that people have in a store, under names that do not depend on ids."""
    runs = client.search_runs([client.get_experiment_by_name("adapt").experiment_id])
    names = {run.info.run_id: run.data.params.get("train.steps", "night") for run in runs}
    found: dict[str, Any] = {}
    for run in runs:
        tags = {k: names.get(v, v) for k, v in run.data.tags.items() if k != ORIGIN}
        curves = {
            key: [(p.step, str(p.value), p.timestamp) for p in history]
            for key in run.data.metrics
            if (history := client.get_metric_history(run.info.run_id, key))
        }
        folder = Path(run.info.artifact_uri)
        assert folder.is_relative_to(root)
        files = {p.name: p.read_text() for p in folder.rglob("*.txt")}
        end = (run.info.status, run.info.end_time, run.info.start_time)
        found[names[run.info.run_id]] = (tags, curves, files, end, run.data.params)
    model = client.get_registered_model("adapt")
    found["model"] = (model.description, {k: str(v) for k, v in model.aliases.items()})
    found["ledger"] = entries.read(client, "adapt")
    for version in client.search_model_versions("name = 'adapt'"):
        tags = {k: names.get(v, v) for k, v in version.tags.items() if k != ORIGIN}
        assert Path(version.source).is_relative_to(root)
        weights = (Path(version.source) / "model.safetensors").read_bytes()
        found[f"v{version.version}"] = (tags, weights, version.description, names[version.run_id])
    return found


def dump(root: Path) -> list[str]:
    with closing(sqlite3.connect(root / ".state/mlflow/mlflow.db")) as connection:
        return list(connection.iterdump())


@BOTH
def test_everything_arrives_and_the_old_store_is_left_alone(full, tmp_path, moved: Moved) -> None:
    before, dumped = content(full.client, full.root), dump(full.root)
    assert set(before) == {"night", "1200", "model", "ledger", "v1", "v3"}
    assert before["model"][1] == {"challenger": "3", "champion": "3", "previous": "1"}
    assert [entry.to for entry in before["ledger"].entries][-2:] == ["1", "3"]
    assert len(before["1200"][1]["train/loss"]) == 1200
    target = moved(full.root, tmp_path / "new")
    assert content(target, tmp_path / "new") == before
    # Again: nothing is doubled.
    assert content(moved(full.root, tmp_path / "new"), tmp_path / "new") == before
    assert dump(full.root) == dumped


@BOTH
def test_what_has_come_in_since_is_added(full, tmp_path, moved: Moved) -> None:
    moved(full.root, tmp_path / "new")
    late = full.client.create_run(full.experiment_id, tags={"adapt.stage": "train"}).info.run_id
    full.client.log_param(late, "train.steps", "7")
    full.client.set_terminated(late)
    registry.register(full, tmp_path / "model", late, {"dvc.model": "m4"})
    assert decided(full, "promoted", "4")[0]
    target = moved(full.root, tmp_path / "new")
    assert content(target, tmp_path / "new") == content(full.client, full.root)


def test_a_store_that_was_moved_before_is_moved_once_more(full, tmp_path) -> None:
    for run in full.client.search_runs([full.experiment_id]):
        full.client.set_tag(run.info.run_id, ORIGIN, "its id before that")
    for _ in range(2):
        target = by_client(full.root, tmp_path / "new")
        assert len(target.search_runs(["1"])) == 2


def test_the_next_number_is_the_same_as_it_would_have_been(full, tmp_path) -> None:
    target = by_client(full.root, tmp_path / "new")
    (run,) = target.search_runs(["1"], "params.`train.steps` = '1200'")
    made = target.create_model_version("adapt", "x:/y", run.info.run_id)
    assert int(made.version) == 4


@BOTH
def test_a_store_with_versions_of_its_own_is_refused(full, tmp_path, moved: Moved) -> None:
    new = tmp_path / "new"
    other = tracked.store_in(new)
    other.create_registered_model("adapt")
    other.create_model_version("adapt", "s3://other/one")
    other.create_model_version("adapt", "s3://other/two")
    with pytest.raises(InputError, match=r"has .*of (adapt of )?its own; name"):
        moved(full.root, new)


def test_a_run_under_way_is_closed_there_and_says_why(full, tmp_path) -> None:
    run = full.client.create_run(full.experiment_id).info.run_id
    target = by_client(full.root, tmp_path / "new")
    (copy,) = target.search_runs(["1"], f"tags.`{ORIGIN}` = '{run}'")
    assert (copy.info.status, copy.data.tags["adapt.error"]) == (
        "KILLED",
        "it was under way when the runs were moved",
    )
    assert full.client.get_run(run).info.status == "RUNNING"


def test_words_and_addresses(full, tmp_path, monkeypatch) -> None:
    where = tmp_path / "new"
    assert move(full.root, str(where)) == [
        f"2 runs, 1201 points of curves, 4 versions of models and 4 files are in {where}",
        f"sqlite:///{full.root}/.state/mlflow/mlflow.db is as it was;"
        " delete it when you are content",
        f"from now on: export MLFLOW_TRACKING_URI=sqlite:///{where}/mlflow.db",
    ]
    with pytest.raises(InputError, match=r"s3://bucket.*expected http"):
        move(full.root, "s3://bucket/runs")
    with pytest.raises(InputError, match="is where the runs are"):
        move(full.root, str(full.root / ".state" / "mlflow"))
    with pytest.raises(InputError, match="there is nothing to move"):
        move(tmp_path / "elsewhere", str(where))
    # Who has set the new address already means the workspace's own store.
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{where}/mlflow.db")
    assert move(full.root, str(where))[0].startswith("2 runs")


def test_a_server_that_is_away_is_named_without_its_password(full, monkeypatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(InputError, match=r"MLflow store http://127.0.0.1:9 cannot be used"):
        move(full.root, "http://me:hunter2@127.0.0.1:9")


def test_what_waits_for_the_old_store_is_sent_first(full, tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(full.root)
    open_run = journal.home(full.root) / ("a" * 32)
    open_run.mkdir(parents=True)
    (open_run / journal.ENTRIES).write_text('{"kind": "open", "name": "night"}\n')
    asked = []
    monkeypatch.setattr("adapt.tracking.drain.flush", lambda root, seconds: asked.append(root))
    monkeypatch.setattr("sys.argv", ["adapt.tracking", "move", str(tmp_path / "new")])
    assert main() == 2
    problem = "1 runs are open or wait to be recorded (`status` says why); move when they are"
    assert capsys.readouterr().err == f"tracking: move: {problem}\n"
    assert asked == [full.root] and not (tmp_path / "new").exists()
    shutil.rmtree(open_run)
    assert main() == 0
    assert "2 runs" in capsys.readouterr().out
