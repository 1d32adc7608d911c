"""The logger of a stage's curves: into the journal of its run, on this machine.

It is a `progress.Recorder`, pickles to a Ray worker, and never stops the training that calls it.
What it loses or sees twice does not matter: the stage's `history.csv` has every step, and the
sender (`adapt.tracking.outbox`) gives MLflow each step of a curve once.
"""

import errno
import os
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from adapt.tracking import journal, lines

SEGMENT = 1 << 20  # bytes of one file of points: the sender deletes those that it has sent
LIMIT = 64 << 20  # bytes of points that may wait in one journal
PAUSE_S = 10.0  # after a refusal of the file system or a full journal, before the next try


@dataclass
class StepLogger:
    """`logger(step, metrics)` adds a point of each named curve to the journal in `folder`.

    Every process that logs has files of its own; one process may write to a curve at a time
    (rank 0). `uri` is the MLflow that the run will be in.
    """

    folder: Path
    prefix: str = ""
    uri: str = ""
    _file: int | None = field(default=None, repr=False, compare=False)
    _left: int = field(default=0, repr=False, compare=False)  # bytes until the file is full
    _name: str = field(default="", repr=False, compare=False)
    _again: float = field(default=0.0, repr=False, compare=False)

    def __getstate__(self) -> dict[str, Any]:
        fresh = {"_file": None, "_left": 0, "_name": "", "_again": 0.0}
        return {**self.__dict__, **fresh}

    def __call__(self, step: int, metrics: Mapping[str, float]) -> None:
        """Write `metrics` (anything `float` takes) at `step`; trouble of the disk is told."""
        point = {self.prefix + name: float(value) for name, value in metrics.items()}
        if time.monotonic() < self._again:
            return
        try:
            if self._left <= 0:
                self._turn()
            if self._file is not None:
                record = {"step": int(step), "time": journal.now(), "values": point}
                self._left -= lines.write(self._file, record)
        except OSError as error:
            self._again = time.monotonic() + PAUSE_S
            journal.tell(self.folder.parent, error)

    def live(self, seconds: float = 20.0) -> dict[str, str] | None:
        """Arguments of `adapt.tracking.live.Live`, once MLflow has the run; None if not in time."""
        deadline = time.monotonic() + seconds
        while not (found := journal.sent(self.folder).get("run_id")):
            if time.monotonic() > deadline or not self.folder.exists():
                return None
            time.sleep(0.2)
        return {"uri": self.uri, "run_id": str(found), "prefix": self.prefix}

    def _turn(self) -> None:
        """Begin the next file, unless too much waits already."""
        folder = self.folder / journal.POINTS
        self.close()
        if sum(path.stat().st_size for path in folder.glob("*")) >= LIMIT:
            raise OSError(errno.ENOSPC, f"{LIMIT >> 20} MB of it wait to be sent")
        folder.mkdir(exist_ok=True)
        writer, _, number = self._name.partition("-")
        self._name = f"{writer or uuid.uuid4().hex[:12]}-{int(number or 0) + 1:06d}"
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
        self._file, self._left = os.open(folder / self._name, flags, 0o600), SEGMENT

    def close(self) -> None:
        """Let the file go; the next point begins another."""
        if self._file is not None:
            os.close(self._file)
            self._file, self._left = None, 0

    def __del__(self) -> None:
        self.close()
