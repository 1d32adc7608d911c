"""A real MLflow server for tests, over an sqlite file, and ways to be cut off from it."""

import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.support import limits, ports


@contextmanager
def running(folder: Path, port: int | None = None) -> Iterator[str]:
    """The address of a server that keeps all in `folder`, on a free port where none is given.

    At the end it is killed, with its children.
    """
    folder.mkdir(exist_ok=True)
    port = port or ports.free()[0]
    address = f"http://127.0.0.1:{port}"
    options = ["--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    options += ["--backend-store-uri", f"sqlite:///{folder}/mlflow.db"]
    options += ["--artifacts-destination", str(folder / "artifacts")]
    env = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    env.pop("MLFLOW_TRACKING_URI", None)
    with (folder / "server.log").open("a") as log:
        server = subprocess.Popen(
            [sys.executable, "-m", "mlflow", "server", *options],
            env=env,
            start_new_session=True,
            stdout=log,
            stderr=log,
        )
    try:
        limits.until(lambda: _answers(address), "answer of MLflow's server", limits.SERVER_START_S)
        yield address
    finally:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()


def _answers(address: str) -> bool:
    try:
        with urllib.request.urlopen(f"{address}/health", timeout=5):
            return True
    except (urllib.error.URLError, OSError):
        return False


@contextmanager
def cut(at: int, *, answer_lost: bool) -> Iterator[list[str]]:
    """Requests from the number `at` on, counted from 1, reach nobody; yields their methods.

    With `answer_lost` the server still carries out the first of them.
    """
    seen: list[str] = []
    send = requests.Session.send

    def sent(self: requests.Session, request: Any, **options: Any) -> Any:
        seen.append(request.method)
        if len(seen) >= at:
            if answer_lost and len(seen) == at:
                send(self, request, **options)
            raise requests.ConnectionError("the connection was cut")
        return send(self, request, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(requests.Session, "send", sent)
        patch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
        yield seen
