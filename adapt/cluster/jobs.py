"""One Ray job: submitted, followed line by line, and stopped when its submitter leaves.

Written here although Ray has `ray job submit`: that gives up at the first connection that breaks,
loses its place in the log then, and leaves the job running when its own process is told to end
(SIGTERM, a closed terminal). Here a broken connection is opened again, each line is printed once,
and only a cluster that stays away is given up.
"""

import asyncio
import itertools
import logging
import os
import sys
import time
from collections import deque
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from typing import Any, TypeVar
from urllib.parse import urlsplit

from adapt import addresses
from adapt.cluster.local import close_token_file
from adapt.names import one_line
from adapt.params import InputError

T = TypeVar("T")
ADDRESS = "RAY_API_SERVER_ADDRESS"
PATIENCE_S = 300.0  # how long the cluster may be unreachable while a job runs
ANSWER_S = 60.0  # after which a request is lost: a connection that was cut may never say so
POLL_S = 1.0  # Ray itself closes the log stream only some seconds after a job's end
STOP_LIMIT_S = 15.0  # less than who ends this process waits before killing it
APPEARS_S = 3.0  # within which a job is known whose submission was cut off
LAST_LINES = 30
LONGEST = 4000  # characters of a line of a job's log


@dataclass(frozen=True, kw_only=True)
class EndedJob:
    """How a job ended: Ray's status, its exit code if it ran, and its last lines."""

    status: str
    exit_code: int | None
    lines: list[str]


def connect(url: str) -> Any:
    """A `JobSubmissionClient` whose connection and token have been checked."""
    if urlsplit(url).scheme not in ("http", "https"):
        problem = "is no http(s) address of a Ray dashboard, such as http://127.0.0.1:8265"
        raise InputError(f"{ADDRESS}: {url} {problem}")
    _use_token()
    from ray.exceptions import AuthenticationError
    from ray.job_submission import JobSubmissionClient

    for chatty in ("ray.dashboard.modules.dashboard_sdk", "ray.dashboard.modules.job.sdk"):
        logging.getLogger(chatty).setLevel(logging.WARNING)

    class Client(JobSubmissionClient):
        """Ray's waits for ever for an answer."""

        def _do_request(self, *names: Any, **options: Any) -> Any:
            return super()._do_request(*names, **{"timeout": ANSWER_S, **options})

    try:
        return Client(url)
    except AuthenticationError:
        advice = "set RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH"
        host = addresses.host(url)
        raise InputError(f"{ADDRESS}: {host} wants its own token; {advice}") from None
    except (OSError, ValueError, RuntimeError) as error:
        reason = addresses.shown(str(error).partition("\n")[0])
        host = addresses.host(url)
        raise InputError(f"{ADDRESS}: no Ray Jobs API at {host} ({reason})") from None


def _use_token() -> None:
    """Ray sends a token in token mode only, read at import; a cluster without tokens ignores it."""
    has_token = os.environ.get("RAY_AUTH_TOKEN") or os.environ.get("RAY_AUTH_TOKEN_PATH")
    if close_token_file().exists() or has_token:
        os.environ.setdefault("RAY_AUTH_MODE", "token")


def run(
    client: Any,
    name: str,
    is_last: Callable[[], bool],
    job: Callable[[], AbstractContextManager[dict[str, Any]]],
    told: Callable[[str], str] = str,
) -> EndedJob:
    """The job called `name`, submitted unless it runs; prints its log, each line as `told` has it.

    `job` opens what `submit_job` takes, for as long as it is sent. Leaving before its end stops it,
    if then `is_last()`. What has ended is submitted again as `name`-2, because Ray takes a name
    once.
    """
    job_id, ended = "", None
    try:
        job_id, runs = _answered(lambda: _place(client, name), name)
        where = f"{addresses.host(client.get_address())}{', which runs already' if runs else ''}"
        if not runs:
            with job() as sent:
                job_id = _answered(lambda: _submit(client, job_id, sent), job_id)
        print(one_line(f"job {job_id} on {where}"), flush=True)
        ended = _follow(client, job_id, told)
        return ended
    finally:
        if ended is None and job_id:
            if is_last():
                _stop(client, job_id)
            else:
                print(one_line(f"left {job_id} to others who wait for it"), flush=True)


def _answered(ask: Callable[[], T], what: str) -> T:
    """What the cluster answers, asked again while it is out of reach."""
    last_contact = time.monotonic()
    while True:
        try:
            return ask()
        except OSError as error:  # those of requests are some
            _give_up(what, last_contact, error)
        time.sleep(POLL_S)


def _give_up(what: str, last_contact: float, error: Exception) -> None:
    """Raise when the cluster has been away for too long."""
    if time.monotonic() - last_contact > PATIENCE_S:
        raise RuntimeError(f"lost the cluster while {what} ran: {error}") from error


def _place(client: Any, name: str) -> tuple[str, bool]:
    """The id of the job called `name` that runs, and True; else a free one, and False."""
    for number in itertools.count(1):
        job_id = name if number == 1 else f"{name}-{number}"
        status = _status(client, job_id)
        if status is None:
            return job_id, False
        if not status.is_terminal():
            return job_id, True
    raise AssertionError


def _status(client: Any, job_id: str) -> Any:
    """Ray's status of a job; None of one that it does not know."""
    try:
        return client.get_job_status(job_id)
    except RuntimeError as error:
        if "404" not in str(error) and "does not exist" not in str(error):
            raise
        return None


def _submit(client: Any, job_id: str, job: dict[str, Any]) -> str:
    """Submit; where somebody else was faster with the same work, that is the job."""
    try:
        client.submit_job(submission_id=job_id, **job)
    except RuntimeError:
        if _status(client, job_id) is None:
            raise
    return job_id


def _follow(client: Any, job_id: str, told: Callable[[str], str] = str) -> EndedJob:
    """Print each line once until the job has ended, however often the connection breaks."""
    from aiohttp import ClientError

    printer = _Printer(told)
    last_contact = time.monotonic()
    while True:
        try:
            asyncio.run(_tail(client, job_id, printer))
            info = client.get_job_info(job_id)
            last_contact = time.monotonic()
            if info.status.is_terminal():
                # The stream may end before the log does: read what it has not brought.
                printer.feed(client.get_job_logs(job_id), 0)
                lines = printer.finish() or str(info.message).splitlines()
                code = info.driver_exit_code
                return EndedJob(status=str(info.status), exit_code=code, lines=lines)
        except (ClientError, OSError, RuntimeError) as error:
            _give_up(job_id, last_contact, error)
        time.sleep(POLL_S)


async def _tail(client: Any, job_id: str, printer: "_Printer") -> None:
    """Feed `printer` from the start of the log, until the stream or the job ends.

    Ray closes the stream late and never tells why a job waits, so the job is asked every `POLL_S`
    whenever no line has come.
    """
    position = 0
    chunks = aiter(client.tail_job_logs(job_id))
    while True:
        following = asyncio.ensure_future(anext(chunks, None))
        while not (await asyncio.wait({following}, timeout=POLL_S))[0]:
            info = await asyncio.to_thread(client.get_job_info, job_id)
            if info.status.is_terminal():
                following.cancel()
                return
            printer.state(info)
        if (chunk := following.result()) is None:
            return
        printer.feed(chunk, position)
        position += len(chunk)


class _Printer:
    """Prints the whole lines of a text that is read again from its start; keeps the last."""

    def __init__(self, told: Callable[[str], str] = str) -> None:
        self._told = told
        self._printed = 0  # characters
        self._rest = ""
        self._last: deque[str] = deque(maxlen=LAST_LINES)
        self._reason = ""

    def state(self, info: Any) -> None:
        """Tell, once, why a job has not started yet: no room on the cluster, an image to fetch."""
        if info.status == "PENDING" and info.message not in (self._reason, None):
            self._reason = info.message
            print(one_line(f"waiting: {info.message}"), flush=True)

    def feed(self, text: str, position: int) -> None:
        """Take `text`, which starts at character `position` of the log; print what is new."""
        new = text[max(0, self._printed - position) :]
        self._printed += len(new)
        *lines, self._rest = (self._rest + new).split("\n")
        for line in map(self._told, lines):
            self._last.append(line)
            print(one_line(line, LONGEST), flush=True)

    def finish(self) -> list[str]:
        """Print a last line that has no end; returns the last lines."""
        if self._rest:
            self.feed("\n", self._printed)
        return list(self._last)


def _stop(client: Any, job_id: str) -> None:
    """Stop a job for good: one that is still being set up ignores the first requests, and one whose
    submission was cut off may be taken after that.
    """
    began = time.monotonic()
    while (waited := time.monotonic() - began) < STOP_LIMIT_S:
        with suppress(OSError, RuntimeError):  # out of reach, or in trouble for a moment
            status = _status(client, job_id)
            if status is None and waited > APPEARS_S:
                break
            if status is not None and status.is_terminal():
                print(one_line(f"stopped {job_id}"), flush=True)
                return
            if status is not None:
                client.stop_job(job_id)
        time.sleep(0.5)
    advice = f"{job_id} was not seen to end; if it runs, `ray job stop {job_id}` stops it"
    print(one_line(advice), file=sys.stderr, flush=True)
