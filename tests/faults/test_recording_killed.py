"""Processes that record are killed: the one with the run, the sender, one of two writers."""

import multiprocessing
import os
import signal
import time
from pathlib import Path

import pytest

from adapt.tracking import drain, journal, outbox, runs, sender
from adapt.tracking.drain import Sender
from adapt.tracking.steps import StepLogger
from adapt.tracking.store import Store
from tests.support import limits, recording, tracked
from tests.support.faults import fault
from tests.support.recording import Training


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    return tracked.workspace(tmp_path, monkeypatch)


@fault(
    "SIGKILL of the process that has a run open (a stage, or a whole retraining)",
    keeps="the points until then; the run ends as KILLED and not as RUNNING for ever",
    says="tag adapt.error: the process that had it (pid N on HOST) was killed",
    then="the next run records anew",
)
def test_a_killed_process_leaves_a_killed_run(store: Store) -> None:
    training = Training(store.root)
    training.steps(1, 5)
    tracked.sent(store)
    assert [run.info.status for run in recording.found(store)] == ["RUNNING"]
    training.kill()
    assert tracked.sent(store) == []
    (run,) = recording.found(store)
    assert run.info.status == "KILLED" and recording.curve(store, run) == [1, 2, 3, 4, 5]
    assert (
        f"the process that had it (pid {training.process.pid} on " in run.data.tags["adapt.error"]
    )
    assert run.info.end_time >= run.info.start_time


@fault(
    "SIGKILL of the sender while a training runs",
    keeps="every point; none comes twice",
    then="the end of the stage, or the next run, starts another sender, which goes on",
)
def test_a_killed_sender_is_followed_by_another(tmp_path: Path) -> None:
    training = Training(tmp_path)
    home = tmp_path / ".state" / "tracking"
    training.steps(1, 20)
    noted = home / training.run_id / journal.SENT
    limits.until(noted.exists, "point in MLflow")
    (held,) = _senders(home)
    training.steps(21, 30)
    os.kill(held, signal.SIGKILL)
    limits.until(lambda: not journal.is_locked(home / "sender.lock"), "end of the sender")
    training.steps(31, 40)
    assert training.end() == 0, training.errors.read_text()
    tracked.settled(tmp_path, training.env)
    store = Store(tmp_path, tracked.CONFIG)
    (run,) = recording.found(store)
    assert run.info.status == "FINISHED" and recording.curve(store, run) == list(range(1, 41))
    assert training.errors.read_text() == ""
    assert _senders(home) == [] and journal.everything(tmp_path) == []


def _senders(home: Path) -> list[int]:
    """The process that has the sender's lock, from the kernel's table of locks."""
    inode = (home / "sender.lock").stat().st_ino
    locks = [line.split() for line in Path("/proc/locks").read_text().splitlines()]
    return [
        int(words[-4]) for words in locks if words[-3].endswith(f":{inode}") and "->" not in words
    ]


@fault(
    "the sender dies at any of its steps, between doing something and noting that it is done",
    keeps="one run, each point, picture and tag of it once",
    then="the next sender goes on",
)
def test_a_sender_may_die_at_every_step(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tracked.results(store.root)
    note, countdown = outbox.Outbox._note, [0]

    def dies(self: outbox.Outbox) -> None:
        countdown[0] -= 1
        if countdown[0] == 0:
            raise SystemExit("killed")
        note(self)

    monkeypatch.setattr(outbox.Outbox, "_note", dies)
    deaths = 0
    for step in range(1, 60):
        with runs.stage_run(store, "evaluate", recording.CONFIG, f"dies at {step}") as run:
            recording.log(run, range(1, 4))
            run.log_results(folder / "evaluate")
        countdown[0] = step
        try:
            tracked.sent(store)
        except SystemExit:
            deaths += 1
        countdown[0] = -1
        assert tracked.sent(store) == []
        if deaths < step:
            break
    assert 8 <= deaths < 59, "every step was hit, and there was an end"
    found = recording.found(store)
    assert len(found) == deaths + 1
    for run in found:
        assert run.info.status == "FINISHED"
        assert recording.curve(store, run, "test/loss") == [1, 2, 3]
        pictures = store.client.list_artifacts(run.info.run_id, "images")
        assert len(pictures) == 4, "two pictures of the grid, each with a small one"
        path = store.client.download_artifacts(run.info.run_id, "responses_first_200.json")
        assert Path(path).read_text().count("what is there?") == 3


@fault(
    "a worker that was taken for dead goes on logging beside the one that took over",
    keeps="each step once",
)
def test_two_workers_that_log_the_same_steps_at_once(store: Store) -> None:
    run_id = runs.start_retraining(store, "tonight", {})
    folder = journal.home(store.root) / run_id
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=_log, args=(folder, first)) for first in (1, 21)]
    for worker in workers:
        worker.start()
    while any(worker.is_alive() for worker in workers):
        tracked.sent(store)
    for worker in workers:
        worker.join()
    tracked.sent(store)
    (run,) = recording.found(store)
    assert recording.curve(store, run) == list(range(1, 61))
    assert len(list((folder / journal.POINTS).iterdir())) == 2


def _log(folder: Path, first: int) -> None:
    log = StepLogger(folder, "train/")
    for step in range(first, 61):
        log(step, {"loss": step / 100})
        time.sleep(0.002)


@fault(
    "a training is killed, and goes on from its checkpoint in a new run",
    keeps="the curve of the new run is whole: also the steps of before the checkpoint",
)
def test_a_resumed_training_has_its_whole_curve(store: Store) -> None:
    first = Training(store.root)
    first.steps(1, 30)
    first.kill()
    second = Training(store.root)
    second.steps(23, 60)
    tracked.sent(store)
    (_, going) = recording.found(store)
    assert recording.curve(store, going) == list(range(23, 61))
    assert second.end() == 0
    assert tracked.sent(store) == []
    killed, resumed = recording.found(store)
    assert (killed.info.status, recording.curve(store, killed)) == ("KILLED", list(range(1, 31)))
    assert (resumed.info.status, recording.curve(store, resumed)) == (
        "FINISHED",
        list(range(1, 61)),
    )


@fault(
    "the process that has a run is killed, and a child that it has forked lives on",
    keeps="the run is closed all the same: a fork does not hold it",
)
def test_a_forked_child_does_not_hold_the_run(store: Store) -> None:
    run_id = runs.start_retraining(store, "tonight", {})
    folder, context = journal.home(store.root) / run_id, multiprocessing.get_context("fork")
    child = context.Process(target=time.sleep, args=(600,))
    child.start()
    try:
        held = journal._HELD[run_id]
        assert held.held is not None
        held.release()  # what the kernel does for a process that dies
        limits.until(lambda: not journal.is_held(folder), "end of the hold")
    finally:
        child.kill()
        child.join()
    tracked.sent(store)
    assert [run.info.status for run in recording.found(store)] == ["KILLED"]


def test_a_sender_that_is_there_is_not_started_again(tmp_path: Path) -> None:
    with tracked.locked(sender.lock(tmp_path), wait=False):
        drain.send(tmp_path)  # returns at once
        sender.start(tmp_path)
    assert not (journal.home(tmp_path) / "sender.log").exists()


def test_what_killed_processes_left_half_made_is_swept(store: Store) -> None:
    home = journal.home(store.root)
    for name in (".new-1", ".done-2", ".new-3"):
        (home / name / "files").mkdir(parents=True)
        if name != ".new-3":
            os.utime(home / name, (0, 0))
    Sender(store.root)._sweep()
    left = [path.name for path in home.iterdir() if path.is_dir()]
    assert left == [".new-3"], "somebody may just be making it"
