"""Which Prefect server records a retraining: the configured one, ours, or a temporary one."""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from httpx import HTTPError
from prefect.client.orchestration import get_client
from prefect.settings import PREFECT_API_URL, get_current_settings, temporary_settings

from adapt import addresses, environment
from adapt.files import check_room
from adapt.params import InputError
from flows.serve import keeper

GONE = (HTTPError, ConnectionError)
"""What Prefect's client raises when a server does not answer any more, or answers nonsense."""


def _in_one_line(record: logging.LogRecord) -> bool:
    """A filter of Prefect's log: that a server is gone is no traceback of a hundred lines."""
    if record.exc_info and isinstance(record.exc_info[1], GONE):
        reason = str(record.exc_info[1]).partition("\n")[0]
        record.msg, record.args = f"Prefect's server does not answer any more: {reason}", ()
        record.exc_info = record.exc_text = None
    return True


@contextmanager
def only_told() -> Iterator[None]:
    """Around what is told to Prefect for people to see: its absence stops no retraining."""
    try:
        yield
    except GONE as error:
        reason = str(error).partition("\n")[0] or type(error).__name__
        logging.getLogger(__name__).warning(f"Prefect's server does not answer: {reason}")


@contextmanager
def prefect_here(root: Path, command: str) -> Iterator[None]:
    """Use the server that is configured, or that of `make serve`, or else start a temporary one.

    `command` is who says so.
    """
    for name in ("prefect.flow_runs", "prefect.task_runs", "prefect.flow_engine"):
        logging.getLogger(name).addFilter(_in_one_line)
    if address := os.environ.get("PREFECT_API_URL"):
        require_answer(address)
        yield
    elif server := keeper.processes(root).get("prefect-server"):
        # A temporary one would share its database.
        with temporary_settings({PREFECT_API_URL: f"{server['address']}/api"}):
            yield
    else:
        # Its server would be started again and again on a disk that is full, for minutes.
        check_room(Path(os.environ["PREFECT_HOME"]))
        limit = get_current_settings().server.ephemeral.startup_timeout_seconds
        wait = f"starting Prefect's temporary server; up to {limit} s on a busy machine"
        with environment.announced(f"{command}: {wait}"):
            try:
                get_client(sync_client=True)  # the flow finds it running then
            except (RuntimeError, ValueError) as error:
                raise InputError(str(error)) from None
        yield


def require_answer(address: str) -> None:
    """InputError where no Prefect server answers at PREFECT_API_URL, instead of its traceback."""
    with get_client(sync_client=True) as client:
        failure = client.api_healthcheck()
    if failure is not None:
        reason = str(failure).partition("\n")[0] or type(failure).__name__
        problem = f"no Prefect server answers at {addresses.shown(address)} ({reason})"
        advice = "start it, or unset the variable to have a temporary one"
        raise InputError(f"PREFECT_API_URL: {problem}; {advice}")
