"""What a run tells while it runs."""

from types import SimpleNamespace

import pytest

from adapt.preference.callback import ReportCallback, final_metrics


def report(is_first: bool, loss: float, log) -> None:
    state = SimpleNamespace(is_world_process_zero=is_first, global_step=3)
    ReportCallback(log, checkpoints=None, steps=9, pairs=4).on_log(
        None, state, None, {"loss": loss, "epoch": 1.0}
    )


def test_one_worker_speaks_and_all_stop():
    points: list[tuple] = []
    for is_first in (True, False):
        report(is_first, 0.5, lambda step, point: points.append((step, point)))
        with pytest.raises(FloatingPointError, match="the loss is nan at step 3"):
            report(is_first, float("nan"), lambda step, point: points.append((step, point)))
    assert points == [(3, {"loss": 0.5})]


def test_final_metrics_are_the_mean_of_the_last_tenth():
    history = [{"step": step, "loss": float(step), "epoch": 0.0} for step in range(1, 21)] + [
        {"train_runtime": 1.0}
    ]
    assert final_metrics(history) == {"loss": 19.5}
