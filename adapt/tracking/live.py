"""The logger of a stage's curves on a machine of a cluster, which does not see the run's journal.

It sends straight to MLflow, beside the work, and is a `progress.Recorder` as the one of the
workspace (`adapt.tracking.steps`) is: it pickles to a Ray worker, and stops no training.
"""

import threading
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field

from adapt.tracking.curves import Curves, Point

QUEUE = 10_000  # points that wait for a server that is slow or away
BEAT_S = 1.0  # how often what waits is sent


@dataclass
class Live:
    """`live(step, metrics)` sends points to the MLflow run `run_id` at `uri`, beside the work.

    A thread sends. What the server does not take is dropped: the history that comes back with the
    stage's result has it.
    """

    uri: str
    run_id: str
    prefix: str = ""
    _waiting: deque[Point] = field(default_factory=lambda: deque(maxlen=QUEUE), repr=False)
    _thread: threading.Thread | None = field(default=None, repr=False, compare=False)
    _ending: threading.Event = field(default_factory=threading.Event, repr=False, compare=False)

    def __reduce__(self) -> tuple[type["Live"], tuple[str, str, str]]:
        return Live, (self.uri, self.run_id, self.prefix)

    def __call__(self, step: int, metrics: Mapping[str, float]) -> None:
        """Take `metrics` (anything `float` takes) at `step`."""
        now = int(time.time() * 1000)
        for name, value in metrics.items():
            self._waiting.append(Point(self.prefix + name, int(step), float(value), now))
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="live curves", daemon=True)
            self._thread.start()

    def live(self) -> dict[str, str] | None:
        """What makes another one of it."""
        return {"uri": self.uri, "run_id": self.run_id, "prefix": self.prefix}

    def close(self, seconds: float = 10.0) -> None:
        """Wait until what was taken is sent or dropped, at most for `seconds`."""
        self._ending.set()
        if self._thread is not None:
            self._thread.join(seconds)

    def _work(self) -> None:
        curves: Curves | None = None
        while not (self._ending.wait(BEAT_S) and not self._waiting):
            taken = [self._waiting.popleft() for _ in range(len(self._waiting))]
            curves = self._send(taken, curves) if taken else curves

    def _send(self, points: list[Point], curves: Curves | None) -> Curves | None:
        """Send them once; None after a failure: what the run has must then be looked up again."""
        from mlflow import MlflowClient
        from mlflow.exceptions import MlflowException
        from sqlalchemy.exc import SQLAlchemyError

        try:
            curves = curves or Curves(MlflowClient(self.uri), self.run_id)
            curves.send(points)
        except (MlflowException, SQLAlchemyError, OSError):
            return None
        return curves
