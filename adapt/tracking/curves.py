"""Curves of a run in MLflow, each step of which is there once, however often it is given.

A training that goes on from a checkpoint replays the steps since then, a sender that was killed
sends its last points again, and the history of a stage has all that live points had. MLflow would
keep each of these as a point more. So the steps that a run has of a curve are looked up when the
curve is first written to, and only others are sent.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mlflow import MlflowClient

BATCH = 1000  # metrics in one request, MLflow's limit


@dataclass(frozen=True)
class Point:
    """A value of the curve `key` at `step`, of the time `time` (ms since 1970)."""

    key: str
    step: int
    value: float
    time: int


class Steps:
    """A set of whole numbers; a million that follow each other take 200 kB.

    >>> steps = Steps([-1, 3])
    >>> [step for step in range(-3, 5) if step in steps]
    [-1, 3]
    """

    BLOCK = 1024

    def __init__(self, steps: Iterable[int] = ()) -> None:
        self._bits: dict[int, int] = {}
        for step in steps:
            self.add(step)

    def __contains__(self, step: int) -> bool:
        block, place = divmod(step, self.BLOCK)
        return bool(self._bits.get(block, 0) >> place & 1)

    def __bool__(self) -> bool:
        return bool(self._bits)

    def add(self, step: int) -> None:
        """Put one in."""
        block, place = divmod(step, self.BLOCK)
        self._bits[block] = self._bits.get(block, 0) | 1 << place


@dataclass
class Curves:
    """The curves of the run `run_id`; one process may write to a curve at a time."""

    client: "MlflowClient"
    run_id: str
    _steps: dict[str, Steps] = field(default_factory=dict, repr=False)

    def send(self, points: Iterable[Point]) -> None:
        """Send the points that the run does not have, the first of each step, in few requests."""
        points = list(points)
        known = self.known(point.key for point in points)
        fresh: dict[tuple[str, int], Point] = {}
        for point in points:
            if point.step not in known[point.key]:
                fresh.setdefault((point.key, point.step), point)
        waiting = list(fresh.values())
        for start in range(0, len(waiting), BATCH):
            self._write(waiting[start : start + BATCH])

    def known(self, keys: Iterable[str]) -> dict[str, Steps]:
        """The steps that the run has of each curve; empty where it does not have the curve."""
        keys = set(keys)
        if new := keys - self._steps.keys():
            there = self.client.get_run(self.run_id).data.metrics
            for key in new:
                history = self.client.get_metric_history(self.run_id, key) if key in there else []
                self._steps[key] = Steps(int(point.step) for point in history)
        return {key: self._steps[key] for key in keys}

    def _write(self, points: list[Point]) -> None:
        from mlflow.entities import Metric

        # Should that fail, it may have arrived all the same: what the run has is looked up again.
        known = self.known(one.key for one in points)
        for key in known:
            del self._steps[key]
        metrics = [Metric(one.key, one.value, one.time, one.step) for one in points]
        self.client.log_batch(self.run_id, metrics=metrics)
        for one in points:
            known[one.key].add(one.step)
        self._steps.update(known)
