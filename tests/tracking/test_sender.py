"""The sender: which journals are its own, what one that is not taken costs the others, its end."""

import subprocess
import sys
from pathlib import Path

import pytest

from adapt.tracking import __main__ as command
from adapt.tracking import drain, journal, runs, sender
from adapt.tracking.drain import Sender
from adapt.tracking.store import Store, TrackingConfig
from tests.support import limits, recording, tracked, workspace


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    return tracked.workspace(tmp_path, monkeypatch)


def finished(store: Store, name: str = "") -> str:
    with runs.stage_run(store, "train", recording.CONFIG, name) as run:
        recording.log(run, range(1, 3))
    return run.run_id


def test_a_journal_for_another_address_waits_for_it(
    store: Store, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    other = f"sqlite:///{store.root / 'other.db'}"
    with monkeypatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", other)
        finished(store, "elsewhere")
    finished(store, "here")
    tracked.sent(store)
    assert [run.info.run_name for run in recording.found(store)] == ["here"]
    assert command.flush(store.root, 1) == 1
    told = capsys.readouterr().err
    assert told.startswith("tracking: 1 runs wait for other addresses, which `status` names;")
    command.status(store.root)
    assert "elsewhere: ended, begun 20" in capsys.readouterr().out
    monkeypatch.setenv("MLFLOW_TRACKING_URI", other)
    assert command.flush(store.root, limits.STEP_S) == 0
    there = Store(store.root, tracked.CONFIG)
    assert [run.info.run_name for run in recording.found(there)] == ["elsewhere"]


def test_a_journal_that_is_not_taken_keeps_up_no_other(
    store: Store, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    deleted = Store(store.root, TrackingConfig(experiment="deleted", model="adapt"))
    store.client.delete_experiment(deleted.experiment_id)
    finished(deleted)
    finished(store)
    sends = Sender(store.root)
    (left,) = sends.once()
    assert len(recording.found(store)) == 1 and not sends.is_away
    assert "mlflow experiments restore" in sends.trouble
    # It is asked for again after a while, not all the time; and the sender may end.
    tried: list[Path] = []
    monkeypatch.setattr(Sender, "_problem", lambda self, folder: tried.append(folder) or "")
    assert sends.once() == [left] and tried == []
    assert "mlflow experiments restore" in sends.trouble
    sends._later[left] = 0.0
    assert sends.once() == [left] and tried == [left]
    assert capsys.readouterr().out.count("restore") == 1


def test_the_sender_ends_with_journals_left_that_are_not_taken(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    deleted = Store(store.root, TrackingConfig(experiment="deleted", model="adapt"))
    store.client.delete_experiment(deleted.experiment_id)
    for name in ("one", "two"):
        finished(deleted, name)
    monkeypatch.setattr(drain, "LINGER_S", 0.2)
    monkeypatch.setattr(drain, "BEAT_S", 0.05)
    assert Sender(store.root).run() is True
    assert len(journal.everything(store.root)) == 2


def test_the_id_of_a_run_that_is_sent_is_found_by_its_tag(store: Store) -> None:
    run_id = finished(store)
    assert tracked.sent(store) == []
    (run,) = recording.found(store)
    assert runs.recorded(store, run_id) == run.info.run_id
    with pytest.raises(runs.Unreachable, match=f"has no run {'0' * 32}"):
        runs.recorded(store, "0" * 32)


def test_nobody_below_a_run_that_is_unknown(store: Store) -> None:
    with runs.stage_run(store, "train", recording.CONFIG, parent="../../nothing"):
        pass
    assert tracked.sent(store) == []
    (run,) = recording.found(store)
    assert "mlflow.parentRunId" not in run.data.tags


def test_a_child_that_is_sent_first_makes_its_parent(store: Store) -> None:
    parent = runs.start_retraining(store, "tonight", {})
    with runs.stage_run(store, "train", recording.CONFIG, parent=parent) as run:
        sends = Sender(store.root)
        sends._outbox(journal.home(store.root) / run.run_id).send()
    (child,) = recording.found(store, "tags.`adapt.stage` = 'train'")
    assert child.data.tags["mlflow.parentRunId"] == runs.recorded(store, parent)


def test_a_run_of_which_nothing_came_is_nobodys(store: Store) -> None:
    assert drain.flush(store.root, 1) == [] and journal.everything(store.root) == []
    sender.start(store.root)
    assert not (journal.home(store.root) / "sender.log").exists()


def test_the_sender_outlives_its_starter_and_ends_by_itself(tmp_path: Path) -> None:
    """It is nobody's child, and in no group, that a flow would end with a stage."""
    training = recording.Training(tmp_path)
    training.steps(1, 5)
    lock = tmp_path / ".state" / "tracking" / "sender.lock"
    limits.until(lambda: journal.is_locked(lock), "sender")
    training.kill()
    assert journal.is_locked(lock)
    limits.until(lambda: not journal.is_locked(lock), "end of the sender")
    workspace.all_end(tmp_path)
    (run,) = recording.found(Store(tmp_path, tracked.CONFIG))
    assert run.info.status == "KILLED"


def test_help_shows_the_commands(tmp_path: Path) -> None:
    words = [sys.executable, "-m", "adapt.tracking", "--help"]
    env = workspace.environment(tmp_path, {"PYTHONPATH": str(workspace.ROOT)})
    text = subprocess.run(words, cwd=tmp_path, env=env, capture_output=True, text=True, check=True)
    assert "python -m adapt.tracking flush" in text.stdout and "send\n" not in text.stdout
