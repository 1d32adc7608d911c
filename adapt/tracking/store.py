"""Where runs are kept: the MLflow store of a workspace, and a logger of steps that survives
restarts.

Nothing has to be started: without `MLFLOW_TRACKING_URI` the store is an sqlite file under the state
folder, opened by every process that logs; with it, the same code talks to a server. Only absolute
addresses leave this file, because Ray workers and services run in other folders.
"""

import fcntl
import logging
import os
import re
import sqlite3
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from adapt import environment
from adapt.params import InputError, Settings, require

if TYPE_CHECKING:
    from mlflow import MlflowClient

SQLITE = "sqlite:///"
BATCH = 1000  # metrics in one request, MLflow's limit


class TrackingConfig(Settings):
    """Section `tracking`: the experiment that runs belong to, the name of the registered model."""

    experiment: Annotated[str, Field(pattern=r"\S")]
    model: Annotated[str, Field(pattern=r"^[A-Za-z0-9][\w. -]*$")]


def uri(root: Path) -> str:
    """Address of the store: `MLFLOW_TRACKING_URI` (a relative sqlite path counts from `root`), or
    our sqlite file.
    """
    given = os.environ.get("MLFLOW_TRACKING_URI", "").strip()
    if not given:
        return f"{SQLITE}{environment.state_dir(root) / 'mlflow' / 'mlflow.db'}"
    if given.startswith(SQLITE):
        return f"{SQLITE}{root.resolve() / given.removeprefix(SQLITE)}"
    return given


def client(root: Path) -> "MlflowClient":
    """A client of the store, which exists and answers afterwards; `InputError` naming the address
    when it does not.
    """
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    address = uri(root)
    try:
        with _creation_lock(address):
            store = MlflowClient(address)  # makes the tables of a new file
            store.search_experiments(max_results=1)
    except (MlflowException, SQLAlchemyError, OSError, ModuleNotFoundError) as error:
        reason = without_credentials(str(error).strip().partition("\n")[0])[:200]
        raise InputError(
            f"MLflow store {without_credentials(address)} cannot be used: {reason}"
        ) from None
    return store


@contextmanager
def _creation_lock(address: str) -> Iterator[None]:
    """Let one process at a time open an sqlite store: two that both create the tables of a new file
    both fail.
    """
    if not address.startswith(SQLITE):
        yield
        return
    database = Path(address.removeprefix(SQLITE))
    database.parent.mkdir(parents=True, exist_ok=True)
    logging.getLogger("mlflow.store.db.utils").setLevel(
        logging.WARNING
    )  # two lines about tables at every creation
    with (database.parent / f".{database.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        is_new = not database.exists()
        yield
        if is_new:
            with closing(sqlite3.connect(database)) as connection:
                connection.execute(
                    "PRAGMA journal_mode=WAL"
                )  # readers do not wait for the writer; kept in the file


def experiment(store: "MlflowClient", config: TrackingConfig, root: Path) -> str:
    """Id of the experiment, created with an absolute artifact folder; a server chooses the place
    itself.
    """
    from mlflow.exceptions import MlflowException

    found = store.get_experiment_by_name(config.experiment)
    if found is None:
        try:
            return str(
                store.create_experiment(
                    config.experiment, artifact_location=_artifact_location(root)
                )
            )
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
            found = store.get_experiment_by_name(config.experiment)  # another process was faster
    require(
        found.lifecycle_stage == "active",
        "tracking.experiment",
        f"{config.experiment} was deleted; bring it back with `mlflow experiments restore -x {found.experiment_id}`",
    )
    return str(found.experiment_id)


def _artifact_location(root: Path) -> str | None:
    address = uri(root)
    if address.startswith(SQLITE):
        return str(Path(address.removeprefix(SQLITE)).parent / "artifacts")
    return (
        None
        if address.startswith("http")
        else str(environment.state_dir(root) / "mlflow" / "artifacts")
    )


def without_credentials(text: str) -> str:
    """`text` without passwords in its addresses and without the values of secret-looking query
    arguments.

    >>> without_credentials("from s3://me:pw@host/data?X-Amz-Signature=ab&part=1")
    'from s3://host/data?X-Amz-Signature=***&part=1'
    """
    text = re.sub(r"([A-Za-z][\w+.-]*://)[^/\s]*@", r"\1", text)
    secret = r"([?&;][^=&\s]*(?:key|token|secret|password|passwd|signature|credential|sig)[^=&\s]*=)[^&;\s'\"]+"
    return re.sub(secret, r"\1***", text, flags=re.IGNORECASE)


@dataclass
class StepLogger:
    """`logger(step, metrics)`: writes one point of each named curve to a run; can be pickled to a
    Ray worker.

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
        return {
            "uri": self.uri,
            "run_id": self.run_id,
            "prefix": self.prefix,
            "_client": None,
            "_last": {},
        }

    def __call__(self, step: int, metrics: Mapping[str, float]) -> None:
        """Write the values of `metrics` (anything `float` takes, NaN too) at `step`, but for steps
        the run has.
        """
        self.extend([(step, metrics)])

    def extend(self, points: Iterable[tuple[int, Mapping[str, float]]]) -> None:
        """The same for many steps, which must ascend, in few requests."""
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        fresh: list[Any] = []
        last: dict[str, int | None] = {}
        for step, metrics in points:
            for name, value in metrics.items():
                key = self.prefix + name
                before = last.setdefault(key, self._last_step(key))
                if before is None or step > before:
                    fresh.append(Metric(key, float(value), now, int(step)))
                    last[key] = int(step)
        for key in last:
            del self._last[key]  # should writing fail half-way, what the run has is looked up again
        for start in range(0, len(fresh), BATCH):
            self._client.log_batch(self.run_id, metrics=fresh[start : start + BATCH])
        self._last.update(last)

    def has(self, key: str) -> bool:
        """Whether the run has points of the curve `key` (without the prefix)."""
        return self._last_step(self.prefix + key) is not None

    def _last_step(self, key: str) -> int | None:
        if self._client is None:
            from mlflow import MlflowClient

            self._client = MlflowClient(self.uri)
        if key not in self._last:
            self._last[key] = max(
                (p.step for p in self._client.get_metric_history(self.run_id, key)), default=None
            )
        return self._last[key]
