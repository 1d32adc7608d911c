"""MLflow does not answer: at the start, in the middle, at the end, or takes nothing."""

import io
import json
import sys
from pathlib import Path

import pytest
import yaml

from adapt import environment
from adapt.launch import launch
from adapt.tracking import __main__ as command
from adapt.tracking import journal, runs, sender
from adapt.tracking.drain import Sender
from adapt.tracking.store import Store
from tests.support import recording, tracked
from tests.support.closure import ROOT
from tests.support.faults import fault


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    return tracked.workspace(tmp_path, monkeypatch)


@fault(
    "MLflow is away during a whole training, and back later",
    keeps="the result, every step of every curve, parameters, tags, and when the run began",
    says="1 runs wait for MLflow at ...: ...; start it and call this again, or leave it",
    then="`python -m adapt.tracking flush`, or the next run, brings all to MLflow",
)
def test_away_for_a_whole_training(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    with recording.away():
        with runs.stage_run(store, "train", recording.CONFIG) as run:
            recording.log(run, range(1, 61))
            run.log_results(recording.leave(store.root, range(1, 61)))
        (waiting,) = tracked.sent(store)
        assert waiting.name == run.run_id
        assert "unable to open database file" in sender.last_trouble(store.root)
        began = json.loads((waiting / journal.ENTRIES).read_text().splitlines()[1][9:])["time"]
        capsys.readouterr()
        command.status(store.root)
    told = capsys.readouterr().out
    assert "train: ended, begun " in told and "unable to open database file" in told
    assert tracked.sent(store) == []
    (one,) = recording.found(store)
    assert (one.info.status, one.info.start_time) == ("FINISHED", began)
    assert recording.curve(store, one) == list(range(1, 61))
    assert (one.data.params, one.data.metrics["train/pairs"]) == ({"train.beta": "0.5"}, 2)
    assert sender.last_trouble(store.root) == "" and journal.everything(store.root) == []


@fault(
    "MLflow goes away in the middle of a training, comes back, and is away again at its end",
    keeps="the training goes on without a pause; the curve has every step once",
    then="the sender goes on by itself where it stopped",
)
def test_away_in_the_middle_and_at_the_end(store: Store) -> None:
    with runs.stage_run(store, "train", recording.CONFIG) as run:
        recording.log(run, range(1, 21))
        tracked.sent(store)
        (one,) = recording.found(store)
        with recording.away():
            recording.log(run, range(21, 41))
            for _ in range(3):
                tracked.sent(store)
        tracked.sent(store)
        assert recording.curve(store, one) == list(range(1, 41))
        with recording.away():
            recording.log(run, range(41, 61))
            run.log_results(recording.leave(store.root, range(1, 61)))
            tracked.sent(store)
    with recording.away():
        tracked.sent(store)
    assert tracked.sent(store) == []
    (one,) = recording.found(store)
    assert one.info.status == "FINISHED"
    assert recording.curve(store, one) == list(range(1, 61))


@fault(
    "MLflow cannot be reached from the start to the end of a stage that runs as a command",
    keeps="the stage ends with 0 and its results are swapped in",
    then="the next stage does not wait for MLflow either",
)
def test_a_stage_ends_well_without_mlflow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    content = yaml.safe_load((ROOT / "params.yaml").read_text())
    content["scenes"] |= {"train_images": 12, "validation_images": 4, "test_images": 4}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(content))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ADAPT_STATE", str(tmp_path / "state"))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    for key, value in {**environment.DEFAULTS, "PREFECT_HOME": str(tmp_path / "prefect")}.items():
        monkeypatch.setenv(key, value)
    monkeypatch.setattr(sys, "argv", ["stage"])
    tracked.alone(tmp_path)
    launch("data")
    assert "adapt data: " in capsys.readouterr().out
    assert json.loads((tmp_path / "results" / "data" / "metrics.json").read_text())
    (waiting,) = journal.everything(tmp_path)
    kinds = [entry["kind"] for entry in journal.entries(waiting)]
    assert kinds == ["run", "end"] and not journal.is_held(waiting)
    assert (waiting / "files" / "stage.data" / "metrics.json").exists()


@fault(
    "another process keeps the SQLite file locked for longer than MLflow waits",
    keeps="the stage does not notice; nothing is taken for refused",
    says="MLflow at ... does not take them: database is locked",
    then="what waited is sent when the lock is gone",
)
def test_a_locked_sqlite_file_is_waited_for(store: Store) -> None:
    tracked.retraining(store)
    database = store.root / ".state" / "mlflow" / "mlflow.db"
    with recording.writing_locked(database):
        with runs.stage_run(store, "train", recording.CONFIG) as run:
            recording.log(run, range(1, 11))
        tracked.sent(store)
        assert "database is locked" in sender.last_trouble(store.root)
    tracked.sent(store)
    (one,) = recording.found(store, "tags.`adapt.stage` = 'train'")
    assert one.info.status == "FINISHED" and recording.curve(store, one) == list(range(1, 11))
    assert not (journal.home(store.root) / "refused.jsonl").exists()


@fault(
    "somebody has deleted the experiment of the runs",
    keeps="what is recorded waits",
    says="tracking.experiment: adapt was deleted; bring it back with `mlflow experiments restore",
    then="all is sent when the experiment is back",
)
def test_a_deleted_experiment_keeps_the_record_waiting(store: Store) -> None:
    identity = store.experiment_id
    store.client.delete_experiment(identity)
    with runs.stage_run(store, "train", recording.CONFIG) as run:
        recording.log(run, range(1, 4))
    assert len(Sender(store.root).once()) == 1
    assert "mlflow experiments restore" in sender.last_trouble(store.root)
    store.client.restore_experiment(identity)
    assert Sender(store.root).once() == []
    (one,) = recording.found(store)
    assert recording.curve(store, one) == [1, 2, 3]


@fault(
    "the question that needs MLflow comes while it is away",
    keeps="the retraining's stages and their results",
    says="MLflow at ... cannot be asked: ...",
    then="the next retraining asks again",
)
def test_a_question_to_an_absent_mlflow_is_one_line(store: Store) -> None:
    run_id = runs.start_retraining(store, "tonight", {})
    with recording.away():
        tracked.sent(store)
        with pytest.raises(runs.Unreachable, match=r"MLflow at sqlite:.* cannot be asked: .*open"):
            runs.recorded(store, run_id, seconds=0.3)
    tracked.sent(store)
    assert store.client.get_run(runs.recorded(store, run_id)).info.run_name == "tonight"


def test_the_sender_waits_longer_from_try_to_try_and_can_be_woken(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[float] = []
    runs.start_retraining(store, "tonight", {})

    def waited(self: Sender, seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 10:
            journal.find(store.root, next(iter(journal.everything(store.root))).name).end("FAILED")

    monkeypatch.setattr(Sender, "_sleep", waited)
    out = io.StringIO()
    with recording.away(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stdout", out)
        assert Sender(store.root).run() is True, "no run is open, and something is left"
    assert waits == [1, 2, 4, 8, 16, 32, 60, 60, 60, 60]
    assert out.getvalue().count("\n") == 1, "an outage is one line in the log"
