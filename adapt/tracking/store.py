"""Where runs are kept: the MLflow store of a workspace.

Nothing has to be started: without `MLFLOW_TRACKING_URI` the store is an SQLite file under the state
folder; with it, the same code talks to a server. Only absolute addresses leave this file, because
Ray workers and services run in other folders.
"""

import logging
import re
import socket
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated
from urllib.parse import urlsplit

from pydantic import Field

from adapt import addresses, command, environment, names
from adapt.files import locked
from adapt.params import InputError, Settings, require
from adapt.tracking.home import at_home, note_of, rehome

if TYPE_CHECKING:
    from mlflow import MlflowClient

SQLITE = "sqlite:///"
KNOCK_S = 5.0  # a database server that runs takes a connection
TAG = "adapt.journal"  # which run is that of a journal
MODEL_NAME = "letters, digits, spaces and . _ - only"


class Unusable(InputError):
    """A store that does not answer, or is none: its address and why."""

    def __init__(self, where: str, why: str) -> None:
        super().__init__(f"MLflow store {where} cannot be used: {why}")
        self.why = why


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
    given = addresses.given("MLFLOW_TRACKING_URI")
    if not given:
        return f"{SQLITE}{environment.state_dir(root) / 'mlflow' / 'mlflow.db'}"
    if given.startswith(SQLITE):
        return f"{SQLITE}{root.resolve() / given.removeprefix(SQLITE)}"
    return given


def label() -> str:
    """What a journal calls the store that it is for: its address as given, without passwords.

    "" for our own, which may be moved with its workspace.
    """
    return addresses.shown(addresses.given("MLFLOW_TRACKING_URI"))


def client(root: Path) -> "MlflowClient":
    """A client whose store exists and answers; `InputError` naming the address else."""
    return opened(uri(root))


def opened(address: str) -> "MlflowClient":
    """The same for an address that need not be the workspace's, such as where runs move to."""
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    try:
        _knock(address)
        with _creation_lock(address):
            client = MlflowClient(address, address)  # makes the tables of a new file
            client.search_experiments(max_results=1)
    except (MlflowException, SQLAlchemyError, sqlite3.Error, OSError, ImportError) as error:
        said = command.explained(error) or reason(error)
        where = addresses.shown(address)
        raise Unusable(where, said) from None
    return client


def reason(error: BaseException) -> str:
    """Why a store does not answer or take something, in one line without passwords.

    What a driver says of it, not the pages that SQLAlchemy and requests make of that.
    """
    if isinstance(error, Unusable):
        return error.why
    cause = error.__cause__ or error
    first = str(getattr(cause, "orig", None) or error).strip().partition("\n")[0]
    number = re.search(r"\[Errno -?\d+\] ([^'\")\]]+)", first)
    return names.tag(number[1] if number else first or type(error).__name__, 300)


def _knock(address: str) -> None:
    """`OSError` where a database is on a server that is away: MLflow would try for 100 seconds."""
    parts = urlsplit(address)
    if parts.hostname and parts.scheme.startswith(("postgresql", "mysql")):
        port = parts.port or (5432 if parts.scheme.startswith("postgresql") else 3306)
        socket.create_connection((parts.hostname, port), timeout=KNOCK_S).close()


def run_of(store: Store, identity: str) -> str | None:
    """MLflow's id of the run of a journal; None where it has none."""
    from mlflow.entities import ViewType

    query, every = f"tags.`{TAG}` = '{identity}'", ViewType.ALL
    found = store.client.search_runs([store.experiment_id], query, every, max_results=1)
    return str(found[0].info.run_id) if found else None


@contextmanager
def _creation_lock(address: str) -> Iterator[None]:
    """One process at a time: two that both create the tables of a new file both fail.

    A store that is complete is opened without: a process that waits for its database, which another
    program may have locked, would keep up all others.
    """
    database = Path(address.removeprefix(SQLITE))
    if not address.startswith(SQLITE) or at_home(database):
        yield
        return
    # MLflow tells of its tables in two lines at every creation.
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.WARNING)
    with locked(database.with_name(f".{database.name}.lock")):
        if is_new := not database.exists():
            note_of(database).unlink(missing_ok=True)  # of one that was deleted
        rehome(database)
        yield
        if is_new:
            with closing(sqlite3.connect(database)) as connection:
                # Readers do not wait for the writer; the file keeps the mode.
                connection.execute("PRAGMA journal_mode=WAL")
            rehome(database)


def _artifacts(root: Path) -> str | None:
    """Absolute folder for a new experiment's files; None: a server chooses the place itself."""
    address = uri(root)
    if address.startswith(SQLITE):
        return str(Path(address.removeprefix(SQLITE)).parent / "artifacts")
    is_server = address.startswith("http")
    return None if is_server else str(environment.state_dir(root) / "mlflow" / "artifacts")
