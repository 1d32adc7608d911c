"""Runs that are recorded while something breaks: a stage of many steps, an MLflow that is away."""

import sqlite3
import subprocess
import sys
import textwrap
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import event
from sqlalchemy.engine import Engine
from sqlalchemy.exc import OperationalError

from adapt.params import Settings
from adapt.tracking import runs
from adapt.tracking.store import Store
from tests.support import tracked, workspace


class Config(Settings):
    beta: float


CONFIG = Config(beta=0.5)
KEY = "train/loss"


def log(run: runs.StageRun, steps: range) -> None:
    """Log a point of one curve at each step; its value tells the step."""
    for step in steps:
        run.log_step(step, {"loss": step / 100})


def leave(root: Path, steps: range) -> Path:
    """The results folder of stage `train`, whose history has these steps."""
    folder = root / "results" / "train"
    folder.mkdir(parents=True, exist_ok=True)
    rows = "".join(f"{step},{step / 100}\n" for step in steps)
    (folder / "history.csv").write_text(f"step,loss\n{rows}")
    (folder / "metrics.json").write_text('{"pairs": 2}')
    return folder


def curve(store: Store, run: Any, key: str = KEY) -> list[int]:
    """The steps that MLflow has of a curve, sorted; each value is that of its step."""
    history = store.client.get_metric_history(run.info.run_id, key)
    assert all(point.value == point.step / 100 for point in history)
    return sorted(point.step for point in history)


def found(store: Store, query: str = "") -> list[Any]:
    """The runs that MLflow has, the oldest first."""
    oldest = ["attributes.start_time ASC"]
    return list(store.client.search_runs([store.experiment_id], query, order_by=oldest))


@contextmanager
def away() -> Iterator[None]:
    """An MLflow that answers nothing: every statement to its database fails."""

    def refuse(connection: Any, cursor: Any, statement: str, *_: Any) -> None:
        raise OperationalError(statement, {}, Exception("unable to open database file"))

    event.listen(Engine, "before_cursor_execute", refuse)
    try:
        yield
    finally:
        event.remove(Engine, "before_cursor_execute", refuse)


@contextmanager
def writing_locked(database: Path) -> Iterator[None]:
    """Somebody writes to the database and does not end; who waits for it gives up early."""

    def shorten(connection: Any, cursor: Any, statement: str, values: Any, *_: Any) -> Any:
        return statement.replace("busy_timeout = 20000", "busy_timeout = 50"), values

    event.listen(Engine, "before_cursor_execute", shorten, retval=True)
    try:
        with closing(sqlite3.connect(database, isolation_level=None)) as connection:
            connection.execute("BEGIN IMMEDIATE")
            yield
    finally:
        event.remove(Engine, "before_cursor_execute", shorten)


SCRIPT = """
import sys
from pathlib import Path
from adapt import environment
from adapt.params import Settings
from adapt.tracking import runs
from adapt.tracking.store import Store, TrackingConfig

class Config(Settings):
    beta: float

root = Path.cwd()
environment.prepare(root)
store = Store(root, TrackingConfig(experiment="adapt", model="adapt"))
with runs.stage_run(store, "train", Config(beta=0.5)) as run:
    print(run.run_id, flush=True)
    for line in sys.stdin:
        first, last = map(int, line.split())
        for step in range(first, last + 1):
            run.log_step(step, {"loss": step / 100})
        print(last, flush=True)
    run.log_results(root / "results" / "train")
assert "mlflow" not in sys.modules and "torch" not in sys.modules, "recording alone loads neither"
"""


class Training:
    """A process with an open run; it logs the steps that it is told, and ends when it is let go."""

    def __init__(self, root: Path, env: Mapping[str, str] | None = None) -> None:
        (root / "params.yaml").write_text(tracked.PARAMS)
        self.root = root
        self.env = workspace.environment(root, {"PYTHONPATH": str(workspace.ROOT), **(env or {})})
        (root / "training.py").write_text(textwrap.dedent(SCRIPT))
        command, self.errors = [sys.executable, "training.py"], root / "errors.txt"
        with self.errors.open("a") as errors:
            pipe = subprocess.PIPE
            self.process = subprocess.Popen(
                command, cwd=root, env=self.env, stdin=pipe, stdout=pipe, stderr=errors, text=True
            )
        self.run_id = self._answer()

    def steps(self, first: int, last: int) -> None:
        """Log these; returns when that is done."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{first} {last}\n")
        self.process.stdin.flush()
        assert self._answer() == str(last)
        self.last = last

    def end(self) -> int:
        """Let it end well; returns its exit code. Its history has all steps from 1."""
        leave(self.root, range(1, self.last + 1))
        self.process.communicate()
        return self.process.returncode

    def kill(self) -> None:
        """End it with a SIGKILL."""
        self.process.kill()
        self.process.communicate()

    def _answer(self) -> str:
        assert self.process.stdout is not None
        line = self.process.stdout.readline().strip()
        assert line, self.errors.read_text()
        return line
