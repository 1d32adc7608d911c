"""The environment of every entry point: each limit is one that its tool knows, signals unwind the
stack, a long wait says what it waits for.
"""

import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import mlflow.environment_variables
import pytest
import ray
from prefect.settings import get_current_settings
from ray.train.v2._internal import constants

from adapt import environment
from tests.support import limits


def test_every_limit_is_one_that_its_tool_knows() -> None:
    """A misspelt or renamed variable would change nothing, and nobody would notice."""
    library = Path(ray.__file__).parent / "_raylet.so"
    known = {match.decode() for match in re.findall(rb"RAY_[a-z_]+", library.read_bytes())}
    known |= {value for value in vars(constants).values() if isinstance(value, str)}
    known |= {"RAY_DASHBOARD_STARTUP_TIMEOUT_S", "TORCH_PROCESS_GROUP_SHUTDOWN_TIMEOUT_S"}
    known |= set(vars(mlflow.environment_variables))
    known |= set(get_current_settings().to_environment_variables())
    assert {"RAY_worker_register_timeout_seconds", "PREFECT_API_REQUEST_TIMEOUT"} <= known
    assert set(environment.LIMITS) - known == set()


def test_what_the_user_has_set_stays(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(os, "environ", {"PREFECT_API_REQUEST_TIMEOUT": "7"})
    environment.prepare(tmp_path)
    assert os.environ["PREFECT_API_REQUEST_TIMEOUT"] == "7"
    assert os.environ["DO_NOT_TRACK"] == "true"
    assert "OMP_NUM_THREADS" not in os.environ


@pytest.mark.parametrize(("threads", "want"), [(None, "3"), ("1", "1")])
def test_processors_limit_threads(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, threads: str | None, want: str
) -> None:
    given = {"ADAPT_CPUS": "3"} | ({"OMP_NUM_THREADS": threads} if threads else {})
    monkeypatch.setattr(os, "environ", given)
    environment.prepare(tmp_path)
    assert os.environ["OMP_NUM_THREADS"] == want


def test_a_long_wait_says_what_it_waits_for(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(environment, "QUIET_S", 0.05)
    with environment.announced("waiting for a server"):
        time.sleep(0.5)
    assert capfd.readouterr().out == "waiting for a server\n"
    monkeypatch.setattr(environment, "QUIET_S", 60.0)
    with environment.announced("waiting for nothing"):
        pass
    assert capfd.readouterr().out == ""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_unwinds_the_stack_once(number: signal.Signals) -> None:
    """A second one does not interrupt the closing."""
    script = (
        "import signal, time; from adapt import environment\n"
        # Ignored signals are inherited, as from `nohup`, and stay ignored.
        "for number in (signal.SIGTERM, signal.SIGHUP): signal.signal(number, signal.SIG_DFL)\n"
        "with environment.terminable():\n"
        "    try:\n        print('open', flush=True); time.sleep(600)\n"
        "    finally:\n        print('closing', flush=True); time.sleep(1); print('closed')"
    )
    command = [sys.executable, "-c", script]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "open\n"
        process.send_signal(number)
        assert process.stdout.readline() == "closing\n"
        process.send_signal(number)
        assert process.stdout.read() == "closed\n"
        assert process.wait(limits.STEP_S) == 128 + number


def test_signals_are_left_alone_where_they_do_not_arrive_or_are_ignored() -> None:
    before = signal.getsignal(signal.SIGTERM)
    handlers = []

    def look() -> None:
        with environment.terminable():
            handlers.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    assert handlers == [before]
    previous = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as `nohup` does
    try:
        with environment.terminable():
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
            assert signal.getsignal(signal.SIGTERM) is not before
        assert signal.getsignal(signal.SIGTERM) is before
    finally:
        signal.signal(signal.SIGHUP, previous)


def test_a_process_is_known_by_when_it_began() -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as other:
        then = environment.began(other.pid)
        assert then is not None and then == environment.began(other.pid)
        other.kill()
        limits.until(lambda: environment.began(other.pid) is None, "that it has ended", 30)
    assert environment.began(other.pid) is None
    assert environment.began(-1) is environment.began(2**70) is None
