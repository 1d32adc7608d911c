"""One Ray job: submitted, followed line by line, and stopped when its submitter leaves.

Written here although Ray has `ray job submit`: that gives up at the first connection that breaks,
loses its place in the log then, and leaves the job running when its own process is told to end
(SIGTERM, a closed terminal). Here a broken connection is opened again, each line is printed once,
and only a cluster that stays away is given up.
"""

import asyncio
import logging
import os
import sys
import time
from collections import deque
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from adapt.params import InputError
from adapt.tracking.store import without_credentials

ADDRESS = "RAY_API_SERVER_ADDRESS"
PATIENCE_S = 300.0  # how long the cluster may be unreachable while a job runs
POLL_S = 1.0  # Ray itself closes the log stream only some seconds after a job's end
STOP_LIMIT_S = 20.0
LAST_LINES = 30


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
    try:
        return JobSubmissionClient(url)
    except AuthenticationError:
        advice = "set RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH"
        raise InputError(f"{ADDRESS}: {host(url)} wants its own token; {advice}") from None
    except (OSError, ValueError, RuntimeError) as error:
        reason = without_credentials(str(error).partition("\n")[0])
        raise InputError(f"{ADDRESS}: no Ray Jobs API at {host(url)} ({reason})") from None


def _use_token() -> None:
    """Ray sends a token in token mode only, read at import; a cluster without tokens ignores it."""
    has_token = os.environ.get("RAY_AUTH_TOKEN") or os.environ.get("RAY_AUTH_TOKEN_PATH")
    if has_token or (Path.home() / ".ray" / "auth_token").exists():
        os.environ.setdefault("RAY_AUTH_MODE", "token")


def run(client: Any, job_id: str, **job: Any) -> EndedJob:
    """Submit a job (as `submit_job` takes it), print its log; leaving before its end stops it."""
    ended = None
    try:
        client.submit_job(submission_id=job_id, **job)
        print(f"job {job_id} on {host(client.get_address())}", flush=True)
        ended = _follow(client, job_id)
        return ended
    finally:
        if ended is None:
            _stop(client, job_id)


def _follow(client: Any, job_id: str) -> EndedJob:
    """Print each line once until the job has ended, however often the connection breaks."""
    from aiohttp import ClientError

    printer = _Printer()
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
            if time.monotonic() - last_contact > PATIENCE_S:
                raise RuntimeError(f"lost the cluster while {job_id} ran: {error}") from error
        time.sleep(1.0)


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

    def __init__(self) -> None:
        self._printed = 0  # characters
        self._rest = ""
        self._last: deque[str] = deque(maxlen=LAST_LINES)
        self._reason = ""

    def state(self, info: Any) -> None:
        """Tell, once, why a job has not started yet: no room on the cluster, an image to fetch."""
        if info.status == "PENDING" and info.message not in (self._reason, None):
            self._reason = info.message
            print(f"waiting: {info.message}", flush=True)

    def feed(self, text: str, position: int) -> None:
        """Take `text`, which starts at character `position` of the log; print what is new."""
        new = text[max(0, self._printed - position) :]
        self._printed += len(new)
        *lines, self._rest = (self._rest + new).split("\n")
        for line in lines:
            self._last.append(line)
            print(line, flush=True)

    def finish(self) -> list[str]:
        """Print a last line that has no end; returns the last lines."""
        if self._rest:
            self.feed("\n", self._printed)
        return list(self._last)


def _stop(client: Any, job_id: str) -> None:
    """Stop a job for good: one that is still being set up ignores the first requests."""
    deadline = time.monotonic() + STOP_LIMIT_S
    # RuntimeError: the cluster does not know the job, so it never started.
    with suppress(OSError, RuntimeError):
        while not client.get_job_status(job_id).is_terminal():
            if time.monotonic() > deadline:
                advice = f"{job_id} has not ended; try `ray job stop {job_id}`"
                print(advice, file=sys.stderr, flush=True)
                return
            client.stop_job(job_id)
            time.sleep(0.5)
        print(f"stopped {job_id}", flush=True)


def host(url: str) -> str:
    """Host and port of `url`, without user and password."""
    return urlsplit(url).netloc.rpartition("@")[2]


def is_loopback(url: str) -> bool:
    """Whether `url` points at this machine's own loopback interface."""
    name = urlsplit(url).hostname or ""
    return name in ("localhost", "::1") or name.startswith("127.")
