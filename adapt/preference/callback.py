"""What a training run tells while it runs and when it ends: step metrics, progress lines,
checkpoints, history.
"""

import math
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transformers import TrainerCallback

from adapt.progress import History, Log

if TYPE_CHECKING:
    from adapt.preference.fit import Checkpoints

# Wall-clock figures and counters that restart on resume: not part of a curve that must come out the
# same.
SKIPPED = ("epoch", "num_tokens", "step", "total_flos")
PROGRESS_SECONDS = 10.0


def curve_point(entry: Mapping[str, Any]) -> dict[str, float]:
    """The plottable figures of one entry of the trainer's log history."""
    return {
        k: float(v) for k, v in entry.items() if k not in SKIPPED and not k.startswith("train_")
    }


class ReportCallback(TrainerCallback):
    """Logs each step from rank 0, prints progress, and hands every checkpoint on."""

    def __init__(
        self,
        log: Log,
        checkpoints: "Checkpoints",
        steps: int,
    ) -> None:
        self._log, self._checkpoints, self._steps = log, checkpoints, steps
        self._said = 0.0

    def on_log(
        self, args: Any, state: Any, control: Any, logs: Mapping[str, Any] | None = None, **_: Any
    ) -> None:
        """One point of every curve; a line of progress every few seconds."""
        if not logs or "loss" not in logs:
            return
        point = curve_point(logs)
        if not math.isfinite(point["loss"]):  # the mean over all workers: they stop together
            raise FloatingPointError(f"the loss is {point['loss']} at step {state.global_step}")
        if not state.is_world_process_zero:
            return
        self._log(state.global_step, point)
        if time.monotonic() - self._said > PROGRESS_SECONDS or state.global_step == self._steps:
            self._said = time.monotonic()
            print(
                f"train: step {state.global_step}/{self._steps}, loss {point['loss']:.4f}",
                file=sys.stderr,
            )

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Every rank saves its share of the checkpoint."""
        self._checkpoints.save(Path(args.output_dir) / f"checkpoint-{state.global_step}")


def _steps(history: Sequence[Mapping[str, Any]]) -> list[tuple[int, dict[str, float]]]:
    return [(int(e["step"]), curve_point(e)) for e in history if "loss" in e]


def write_history(history: Sequence[Mapping[str, Any]], path: Path) -> None:
    """The trainer's log history as the CSV file of the stage."""
    curves = History(lambda step, metrics: None)
    for step, point in _steps(history):
        curves(step, point)
    curves.write(path)


def summary(history: Sequence[Mapping[str, Any]], share: float = 0.1) -> dict[str, float]:
    """Mean of each figure over the last tenth of the steps (at least one)."""
    rows = [point for _, point in _steps(history)]
    tail = rows[-max(1, round(share * len(rows))) :]
    return {name: sum(point[name] for point in tail) / len(tail) for name in sorted(tail[-1])}
