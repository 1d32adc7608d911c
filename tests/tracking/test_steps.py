"""Points of curves: each step once, however often a training starts again, and no point lost."""

import math
import pickle
from pathlib import Path

import numpy as np
import pytest
from mlflow.exceptions import MlflowException

from adapt.tracking import curves, journal, runs, steps
from adapt.tracking.curves import Curves, Point
from adapt.tracking.live import Live
from adapt.tracking.steps import StepLogger
from adapt.tracking.store import Store, uri
from tests.support import tracked


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    return tracked.workspace(tmp_path, monkeypatch)


def logger(store: Store, prefix: str = "") -> tuple[StepLogger, str]:
    """A logger into the journal of an open run, and that run's id."""
    run_id = runs.start_retraining(store, "tonight", {})
    return StepLogger(journal.home(store.root) / run_id, prefix), run_id


def curve(store: Store, run_id: str, key: str) -> list[tuple[int, float]]:
    history = store.client.get_metric_history(runs.recorded(store, run_id), key)
    return [(point.step, point.value) for point in history]


def test_restarted_training_leaves_neither_hole_nor_doubled_step(store: Store) -> None:
    first, run_id = logger(store, "train/")
    for step in range(1, 6):
        first(step, {"loss": step / 10})
    second = pickle.loads(pickle.dumps(first))  # into the worker that takes over from step 2
    for step in range(3, 9):
        second(step, {"loss": 0.0 if step <= 5 else step / 10, "late": 1.0})
    tracked.sent(store)
    # Two writers at once: which of two points comes first is not said, that there is one is.
    assert [step for step, _ in curve(store, run_id, "train/loss")] == list(range(1, 9))
    assert [step for step, _ in curve(store, run_id, "train/late")] == list(range(3, 9))


def test_a_point_that_was_sent_stays_when_it_comes_again(store: Store) -> None:
    first, run_id = logger(store)
    first(1, {"x": 1.0})
    tracked.sent(store)
    second = pickle.loads(pickle.dumps(first))
    second(1, {"x": 9.0})
    second(2, {"x": 2.0})
    tracked.sent(store)
    assert curve(store, run_id, "x") == [(1, 1.0), (2, 2.0)]


def test_what_float_takes_can_be_logged(store: Store) -> None:
    log, run_id = logger(store)
    log(np.int64(0), {"x": np.float32(0.5), "n": math.nan})
    tracked.sent(store)
    assert curve(store, run_id, "x") == [(0, 0.5)]
    assert math.isnan(curve(store, run_id, "n")[0][1])


def test_files_of_points_are_begun_anew_and_go_when_they_are_sent(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(steps, "SEGMENT", 200)
    log, run_id = logger(store)
    for step in range(50):
        log(step, {"x": float(step)})
    folder = log.folder / journal.POINTS
    assert len(list(folder.iterdir())) > 5
    tracked.sent(store)
    assert len(list(folder.iterdir())) == 1, "the one that is written to stays"
    log(50, {"x": 50.0})
    tracked.sent(store)
    assert curve(store, run_id, "x") == [(step, float(step)) for step in range(51)]


def test_a_journal_that_nobody_sends_has_an_end(
    store: Store, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(steps, "SEGMENT", 1000)
    monkeypatch.setattr(steps, "LIMIT", 5000)
    log, _ = logger(store)
    for step in range(1000):
        log(step, {"x": float(step)})
    size = sum(path.stat().st_size for path in (log.folder / journal.POINTS).iterdir())
    assert 5000 <= size < 7000
    (line,) = capsys.readouterr().err.splitlines()
    assert "wait to be sent" in line and "the work goes on" in line


def test_points_may_be_given_again_after_an_error(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_id = runs.recorded(store, tracked.retraining(store))
    points = Curves(store.client, run_id)
    points.send([Point("x", 1, 1.0, 0)])
    write, calls = points.client.log_batch, []

    def fails_once(*args: object, **kwargs: object) -> None:
        calls.append(args)
        if len(calls) == 2:  # the first of two batches is written
            raise MlflowException("server gone")
        write(*args, **kwargs)

    monkeypatch.setattr(points.client, "log_batch", fails_once)
    monkeypatch.setattr(curves, "BATCH", 1)
    again = [Point("x", step, float(step), 0) for step in (2, 3)]
    with pytest.raises(MlflowException):
        points.send(again)
    points.send(again)
    history = store.client.get_metric_history(run_id, "x")
    assert [(p.step, p.value) for p in history] == [(1, 1.0), (2, 2.0), (3, 3.0)]


def test_live_points_reach_mlflow_beside_the_work_and_once(store: Store) -> None:
    run_id = tracked.retraining(store)
    for _ in range(2):  # the second is a worker that was started again, and replays
        live = pickle.loads(pickle.dumps(Live(uri(store.root), runs.recorded(store, run_id), "a/")))
        for step in range(1, 4):
            live(step, {"x": np.float32(step)})
        live.close()
    assert curve(store, run_id, "a/x") == [(1, 1.0), (2, 2.0), (3, 3.0)]


def test_live_points_that_nobody_takes_stop_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    live = Live("http://127.0.0.1:9", "0" * 32)
    for step in range(3):
        live(step, {"x": 1.0})
    live.close()
    assert not live._waiting, "dropped, not kept for ever"
