"""What a training run reports: step metrics, lines of progress, checkpoints and the history."""

import contextlib
import datetime
import logging
import math
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from adapt.names import one_line
from adapt.preference import shards
from adapt.preference.best import BEST
from adapt.preference.checkpoints import Checkpoints
from adapt.preference.validation import is_point
from adapt.progress import History, Log, unlogged

# Wall-clock times, and counters that start again on resume, belong to no curve that must come out
# the same.
SKIPPED = ("epoch", "num_tokens", "step", "total_flos")
PROGRESS_SECONDS = 10.0
Entries = Sequence[Mapping[str, Any]]  # the trainer's log history


def curve_point(entry: Mapping[str, Any]) -> dict[str, float]:
    """The metrics of one entry of the trainer's log history that belong to curves."""
    kept = (key for key in entry if key not in SKIPPED and not key.startswith("train_"))
    return {key: float(entry[key]) for key in kept}


class ReportCallback(TrainerCallback):
    """Logs each step from rank 0, prints progress, and hands every checkpoint on.

    Args:
        steps: of the whole run. pairs: in a step, over all workers.
    """

    def __init__(self, log: Log, checkpoints: Checkpoints, steps: int, pairs: int) -> None:
        self._log, self._checkpoints, self._steps, self._pairs = log, checkpoints, steps, pairs
        self._printed_at = 0.0
        self._pace = Pace()
        self._is_size_told = False

    def on_log(
        self, args: Any, state: Any, control: Any, logs: Mapping[str, Any] | None = None, **_: Any
    ) -> None:
        """One point of every curve; a line of progress every few seconds."""
        point, step = curve_point(logs or {}), state.global_step
        if is_point(point) and state.is_world_process_zero:
            self._log(step, point)
            figures = ", ".join(f"{name} {value:.4g}" for name, value in point.items())
            print(one_line(f"train: step {step}/{self._steps}, {figures}"), file=sys.stderr)
        if "loss" not in point:
            return
        if not math.isfinite(point["loss"]):  # the mean over all workers: they stop together
            raise FloatingPointError(f"the loss is {point['loss']} at step {step}")
        if not state.is_world_process_zero:
            return
        self._log(step, point)
        pace = self._pace.line(step, self._steps, self._pairs, time.monotonic())
        if time.monotonic() - self._printed_at > PROGRESS_SECONDS or step == self._steps:
            self._printed_at = time.monotonic()
            line = f"train: step {step}/{self._steps}, loss {point['loss']:.4f}{pace}"
            print(one_line(line), file=sys.stderr)

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Every rank saves its share of the checkpoint; the first one tells how large it is."""
        folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        if state.is_world_process_zero and not self._is_size_told:
            self._is_size_told = True
            whole = _bytes(folder / BEST)  # the best weights are the first process's alone
            shares = args.world_size if shards.are_in(folder) else 1
            size = (_bytes(folder) - whole) * shares + whole
            print(f"train: a checkpoint takes {size / 1e9:.2g} GB", file=sys.stderr)
        self._checkpoints.save(folder)


@contextlib.contextmanager
def divided_anew() -> Iterator[None]:
    """Without transformers' warning of a checkpoint whose passes had other rows: ours may."""
    logger = logging.getLogger("transformers.trainer_utils")

    def is_other(record: logging.LogRecord) -> bool:
        return "in the `trainer_state.json` within" not in record.getMessage()

    logger.addFilter(is_other)
    try:
        yield
    finally:
        logger.removeFilter(is_other)


def _bytes(folder: Path) -> int:
    """Of all files in a folder; 0 where there is none."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


class Pace:
    """How fast training goes, measured from the first step that this process logged."""

    def __init__(self) -> None:
        self._first: tuple[int, float] | None = None

    def line(self, step: int, steps: int, pairs: int, now: float) -> str:
        """ ", 12.0 pairs/s, 0:01:40 left", or nothing at the first step; `now` in seconds.

        >>> pace = Pace()
        >>> pace.line(1, 11, 24, 0.0), pace.line(6, 11, 24, 10.0)
        ('', ', 12.0 pairs/s, 0:00:10 left')
        """
        if self._first is None:
            self._first = (step, now)
        done, seconds = step - self._first[0], now - self._first[1]
        if done == 0 or seconds == 0:
            return ""
        left = datetime.timedelta(seconds=round((steps - step) * seconds / done))
        return f", {done * pairs / seconds:.1f} pairs/s, {left} left"


def write_history(entries: Entries, path: Path) -> None:
    """The trainer's log history as the CSV file of the stage."""
    curves = History(unlogged)
    for step, point in (*_points(entries), *_points(entries, is_point)):
        curves(step, point)
    curves.write(path)


def final_metrics(entries: Entries, share: float = 0.1) -> dict[str, float]:
    """Mean of each metric over the last tenth of the steps (at least one)."""
    points = [point for _, point in _points(entries)]
    tail = points[-max(1, round(share * len(points))) :]
    return {name: sum(point[name] for point in tail) / len(tail) for name in sorted(tail[-1])}


def _points(
    entries: Entries, belongs: Callable[[Mapping[str, Any]], bool] = lambda entry: "loss" in entry
) -> list[tuple[int, dict[str, float]]]:
    return [(int(entry["step"]), curve_point(entry)) for entry in entries if belongs(entry)]
