"""What a long loop tells: a bar on a terminal, a line now and then in a log, and its curves."""

import csv
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sized
from pathlib import Path
from typing import Protocol, TypeVar, runtime_checkable

Log = Callable[[int, Mapping[str, float]], None]
"""`log(step, metrics)`: one point of each named curve."""

T = TypeVar("T")


@runtime_checkable
class Recorder(Protocol):
    """A `Log` that writes into an MLflow run, which another machine may do in its place."""

    uri: str  # of that MLflow

    def __call__(self, step: int, metrics: Mapping[str, float]) -> None:
        """Write one point of each named curve."""

    def live(self) -> dict[str, str] | None:
        """Arguments of `adapt.tracking.live.Live`; None where MLflow does not have the run."""


def unlogged(step: int, metrics: Mapping[str, float]) -> None:
    """A `Log` that nobody follows."""


def track(
    items: Iterable[T],
    label: str,
    total: int | None = None,
    count: Callable[[T], int] | None = None,
) -> Iterator[T]:
    """Iterate with a progress bar on stderr; outside a terminal, one line every ten seconds.

    `count`: how many of the `total` an item stands for, where that is not one.
    """
    from tqdm import tqdm

    interval = 0.2 if sys.stderr.isatty() else 10.0
    total = len(items) if total is None and isinstance(items, Sized) else total
    options = {"desc": label, "mininterval": interval, "dynamic_ncols": True}
    with tqdm(total=total, **options) as bar:
        for item in items:
            yield item
            bar.update(1 if count is None else count(item))


class History:
    """Curves of a stage: every point goes to `log` at once, and all into a CSV for `dvc plots`."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self.rows: dict[int, dict[str, float]] = {}

    def __call__(self, step: int, metrics: Mapping[str, float]) -> None:
        """Record one point of each named curve."""
        self.rows.setdefault(step, {}).update(metrics)
        self._log(step, metrics)

    def write(self, path: Path) -> None:
        """Write `step` and a column per curve, by step; a missing point is an empty cell."""
        names = sorted({name for row in self.rows.values() for name in row})
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, ["step", *names], lineterminator="\n")
            writer.writeheader()
            writer.writerows({"step": step, **row} for step, row in sorted(self.rows.items()))
