"""Where runs are kept: the MLflow store of a workspace, and a logger of steps across restarts.

Nothing has to be started: without `MLFLOW_TRACKING_URI` the store is an SQLite file under the state
folder, opened by every process that logs; with it, the same code talks to a server. Only absolute
addresses leave this file, because Ray workers and services run in other folders.
"""

import logging
import os
import re
import sqlite3
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from adapt import environment
from adapt.files import locked
from adapt.params import InputError, Settings, require

if TYPE_CHECKING:
    from mlflow import MlflowClient

SQLITE = "sqlite:///"
BATCH = 1000  # metrics in one request, MLflow's limit
MODEL_NAME = "letters, digits, spaces and . _ - only"


class TrackingConfig(Settings):
    """Section `tracking`: the experiment that runs belong to, the name of the registered model."""

    experiment: Annotated[str, Field(pattern=r"\S", description="a name that is not empty")]
    model: Annotated[str, Field(pattern=r"^[A-Za-z0-9][\w. -]*$", description=MODEL_NAME)]


@dataclass(frozen=True)
class Store:
    """The store of the workspace `root`: handed on, it is opened at the first question, and once.

    A dry run that asks nothing therefore makes no file and reaches no server.
    """

    root: Path
    config: TrackingConfig

    @cached_property
    def client(self) -> "MlflowClient":
        """A client whose store exists and answers; `InputError` naming the address else."""
        return client(self.root)

    @cached_property
    def experiment_id(self) -> str:
        """Id of the experiment, which is made where it is missing; `InputError` if deleted."""
        from mlflow.exceptions import MlflowException

        name = self.config.experiment
        experiment = self.client.get_experiment_by_name(name)
        if experiment is None:
            try:
                folder = _artifacts(self.root)
                return str(self.client.create_experiment(name, artifact_location=folder))
            except MlflowException as error:
                if error.error_code != "RESOURCE_ALREADY_EXISTS":
                    raise
                experiment = self.client.get_experiment_by_name(name)  # another process was faster
        identity = str(experiment.experiment_id)
        problem = f"{name} was deleted; bring it back with `mlflow experiments restore -x"
        is_active = experiment.lifecycle_stage == "active"
        require(is_active, "tracking.experiment", f"{problem} {identity}`")
        return identity


def uri(root: Path) -> str:
    """`MLFLOW_TRACKING_URI`, relative SQLite paths from `root`, or our own SQLite file."""
    given = os.environ.get("MLFLOW_TRACKING_URI", "").strip()
    if not given:
        return f"{SQLITE}{environment.state_dir(root) / 'mlflow' / 'mlflow.db'}"
    if given.startswith(SQLITE):
        return f"{SQLITE}{root.resolve() / given.removeprefix(SQLITE)}"
    return given


def client(root: Path) -> "MlflowClient":
    """A client whose store exists and answers; `InputError` naming the address else."""
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    address = uri(root)
    try:
        with _creation_lock(address):
            opened = MlflowClient(address)  # makes the tables of a new file
            opened.search_experiments(max_results=1)
    except (MlflowException, SQLAlchemyError, OSError, ModuleNotFoundError) as error:
        reason = without_credentials(str(error).strip().partition("\n")[0])[:200]
        where = without_credentials(address)
        raise InputError(f"MLflow store {where} cannot be used: {reason}") from None
    return opened


@contextmanager
def _creation_lock(address: str) -> Iterator[None]:
    """One process at a time: two that both create the tables of a new file both fail."""
    if not address.startswith(SQLITE):
        yield
        return
    database = Path(address.removeprefix(SQLITE))
    # MLflow tells of its tables in two lines at every creation.
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.WARNING)
    with locked(database.with_name(f".{database.name}.lock")):
        is_new = not database.exists()
        yield
        if is_new:
            with closing(sqlite3.connect(database)) as connection:
                # Readers do not wait for the writer; the file keeps the mode.
                connection.execute("PRAGMA journal_mode=WAL")


def _artifacts(root: Path) -> str | None:
    """Absolute folder for a new experiment's files; None: a server chooses the place itself."""
    address = uri(root)
    if address.startswith(SQLITE):
        return str(Path(address.removeprefix(SQLITE)).parent / "artifacts")
    is_server = address.startswith("http")
    return None if is_server else str(environment.state_dir(root) / "mlflow" / "artifacts")


def without_credentials(text: str) -> str:
    """`text` without passwords in its addresses and values of secret-looking query arguments.

    >>> without_credentials("from s3://me:pw@host/data?X-Amz-Signature=ab&part=1")
    'from s3://host/data?X-Amz-Signature=***&part=1'
    """
    text = re.sub(r"([A-Za-z][\w+.-]*://)[^/\s]*@", r"\1", text)
    names = "key|token|secret|password|passwd|signature|credential|sig"
    secret = rf"([?&;][^=&\s]*(?:{names})[^=&\s]*=)[^&;\s'\"]+"
    return re.sub(secret, r"\1***", text, flags=re.IGNORECASE)


@dataclass
class StepLogger:
    """`logger(step, metrics)` writes a point of each named curve to a run; pickles to a Ray worker.

    A training that restarts from a checkpoint replays the steps since then. What the run already
    has of a curve is therefore looked up when the curve is first written to, and points up to there
    are skipped: no step is doubled, and because every call writes at once, none is missing. One
    process may write to a curve at a time (rank 0).
    """

    uri: str
    run_id: str
    prefix: str = ""
    _client: Any = field(default=None, repr=False, compare=False)
    _last: dict[str, int | None] = field(default_factory=dict, repr=False, compare=False)

    def __getstate__(self) -> dict[str, Any]:
        # What was read here may be out of date where this is unpickled.
        return {**self.__dict__, "_client": None, "_last": {}}

    def __call__(self, step: int, metrics: Mapping[str, float]) -> None:
        """Write `metrics` (anything `float` takes) at `step`, unless the run has it."""
        self.extend([(step, metrics)])

    def extend(self, points: Iterable[tuple[int, Mapping[str, float]]]) -> None:
        """The same for many steps, which must ascend, in few requests."""
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        fresh: list[Any] = []
        last: dict[str, int | None] = {}
        # 1. Keep the points that lie behind the last one of their curve.
        for step, metrics in points:
            for name, value in metrics.items():
                key = self.prefix + name
                before = last.setdefault(key, self._last_step(key))
                if before is None or step > before:
                    fresh.append(Metric(key, float(value), now, int(step)))
                    last[key] = int(step)
        # 2. Write them. Should that fail half-way, what the run has is looked up again.
        for key in last:
            del self._last[key]
        for start in range(0, len(fresh), BATCH):
            self._client.log_batch(self.run_id, metrics=fresh[start : start + BATCH])
        self._last.update(last)

    def _last_step(self, key: str) -> int | None:
        if self._client is None:
            from mlflow import MlflowClient

            self._client = MlflowClient(self.uri)
        if key not in self._last:
            history = self._client.get_metric_history(self.run_id, key)
            self._last[key] = max((point.step for point in history), default=None)
        return self._last[key]
