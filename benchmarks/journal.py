"""What it costs a training to be recorded: a step with 1,000 points a second, and without.

    python -m benchmarks.journal [--repeats 15] [--steps 20]

A step is a product of matrices of about a tenth of a second on one thread, behind which 100 points
are logged: as 20 curves in five calls, or one point a call, the worst that a stage can do. The
sides take turns: nothing is logged; a journal that nobody empties; a journal that the sender, a
process of its own, brings to MLflow's SQLite meanwhile; and MLflow itself, asked at each call, as
was done before there was a journal. The time of the step's own processor is counted beside the
time on the clock: the sender has another processor, but on a machine that is full it needs its
share of this one.
"""

import argparse
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch

from adapt import environment
from adapt.files import locked
from adapt.params import Settings
from adapt.progress import Log, unlogged
from adapt.tracking import runs, sender
from adapt.tracking.store import Store, TrackingConfig
from benchmarks.sides import FOLDER, by_turns, ratios, spread, write

CONFIG = TrackingConfig(experiment="benchmark", model="benchmark")
POINTS = 100  # after each step
SHAPES = {"20 curves a call": 20, "1 point a call": 1}


class Step:
    """A product of matrices that takes about a tenth of a second."""

    def __init__(self) -> None:
        self.matrix, self.repeats = torch.randn(512, 512), 1
        took = min(self._took() for _ in range(5))
        self.repeats = max(1, round(0.1 / took))

    def __call__(self) -> None:
        for _ in range(self.repeats):
            self.matrix @ self.matrix

    def _took(self) -> float:
        start = time.perf_counter()
        self()
        return time.perf_counter() - start


class Recorded:
    """`steps` steps with their points, logged by a fresh logger each turn: seconds of a step."""

    def __init__(self, step: Step, steps: int, curves: int, opened: Callable[[], Log]) -> None:
        self.step, self.steps, self.curves, self.opened = step, steps, curves, opened
        self.processor: list[float] = []

    def __call__(self) -> float:
        log, number = self.opened(), 0
        names = [f"metric {curve}" for curve in range(self.curves)]
        start, processor = time.perf_counter(), time.process_time()
        for _ in range(self.steps):
            self.step()
            for _ in range(POINTS // self.curves):
                number += 1
                log(number, dict.fromkeys(names, 0.5))
        self.processor.append((time.process_time() - processor) / self.steps)
        return (time.perf_counter() - start) / self.steps


class Open(Settings):
    """The settings of a stage that has none."""


def journal(store: Store, count: list[int]) -> Callable[[], Log]:
    """A journal for each turn, which stays open until the process ends, as a long training's."""

    def opened() -> Log:
        count[0] += 1
        run = runs.stage_run(store, "train", Open(), f"turn {count[0]}")
        held.append(run)
        return run.__enter__().log_step

    held: list[object] = []
    return opened


def asked(store: Store) -> Callable[[], Log]:
    """MLflow asked at each call."""

    def opened() -> Log:
        from mlflow.entities import Metric

        run_id = store.client.create_run(store.experiment_id).info.run_id

        def log(step: int, metrics: object) -> None:
            assert isinstance(metrics, dict)
            now = int(time.time() * 1000)
            points = [Metric(key, value, now, step) for key, value in metrics.items()]
            store.client.log_batch(run_id, metrics=points)

        return log

    return opened


@contextmanager
def workspace(name: str) -> Iterator[Store]:
    """A folder with a store of its own, made before anything is timed."""
    with tempfile.TemporaryDirectory(prefix=f"journal-{name}-") as folder:
        store = Store(Path(folder), CONFIG)
        assert store.experiment_id
        yield store


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="What the journal costs a training step.")
    parser.add_argument("--repeats", type=int, default=15, help="turns that every side takes")
    parser.add_argument("--steps", type=int, default=20, help="in a turn")
    parser.add_argument("--out", type=Path, default=FOLDER, help="folder of the dated file")
    options = parser.parse_args(arguments)
    options.device = "cpu"
    torch.set_num_threads(1)
    for key in ("ADAPT_STATE", "MLFLOW_TRACKING_URI", "ADAPT_PARENT_RUN"):
        os.environ.pop(key, None)
    environment.prepare(Path.cwd())
    step, rows = Step(), []
    with workspace("kept") as kept, workspace("sent") as sent, locked(sender.lock(kept.root)):
        own = {shape: of_a_call(journal(kept, [0])(), curves) for shape, curves in SHAPES.items()}
        for shape, curves in SHAPES.items():
            rows += measured(step, options, shape, curves, kept, sent)
    calls = f"a step of about 0.1 s, {POINTS} points after each: 1,000 points a second"
    ratio = f"{calls}; ratios to the same steps without a log, median and quartiles."
    alone = "; ".join(
        f"{shape}: {1e6 * seconds:.1f} us of a processor, {1000 * seconds / SHAPES[shape]:.2%} "
        "of a second's time at 1,000 points"
        for shape, seconds in own.items()
    )
    notes = [f"A call by itself, the best of five times 2,000: {alone}.", "", ratio]
    write("journal", "The journal: what a step pays for being recorded", notes, rows, options)


def of_a_call(log: Log, curves: int, calls: int = 2000) -> float:
    """Seconds of a processor for a call, which other work on the machine hardly moves."""
    point, took = {f"metric {curve}": 0.5 for curve in range(curves)}, []
    for _ in range(5):
        start = time.process_time()
        for step in range(calls):
            log(step, point)
        took.append((time.process_time() - start) / calls)
    return min(took)


def measured(
    step: Step, options: argparse.Namespace, shape: str, curves: int, kept: Store, sent: Store
) -> list[dict[str, str]]:
    """The rows of one shape of calls."""
    opened: dict[str, Callable[[], Log]] = {
        "nothing": lambda: unlogged,
        "journal, nobody sends": journal(kept, [0]),
        "journal and sender": journal(sent, [0]),
        "MLflow at each call": asked(kept),
    }
    sides = {name: Recorded(step, options.steps, curves, one) for name, one in opened.items()}
    wall = by_turns(sides, options.repeats, shape)
    used = {name: side.processor[-options.repeats :] for name, side in sides.items()}
    return [
        {
            "points": shape,
            "record": name,
            "ms of a step": spread([1000 * value for value in wall[name]], 1),
            "time, ratio": spread(ratios(wall, name, "nothing")),
            "its processor, ratio": spread(ratios(used, name, "nothing")),
        }
        for name in sides
    ]


if __name__ == "__main__":
    main()
