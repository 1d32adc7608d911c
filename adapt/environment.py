"""The process environment of every entry point: telemetry off, quiet tools, time limits with room.

`prepare()` fills in what the user has not set. Every command that imports mlflow, ray, prefect or
transformers calls it first, because they read their switches when they are imported.
"""

import hashlib
import os
import signal
import socket
import threading
from argparse import ArgumentParser, ArgumentTypeError, RawDescriptionHelpFormatter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

import psutil

SWITCHES = {
    # Telemetry. MLflow accepts only the word "true"; DVC does not honour DO_NOT_TRACK.
    "DO_NOT_TRACK": "true",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DVC_NO_ANALYTICS": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    # Ray Train polls its workers every 2 s, which is most of the wall time of a small job.
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",
    # Two helpers of Ray Train that a job of minutes does not need.
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
    "RAY_TRAIN_METRICS_ENABLED": "0",
    # Ray Train's patched print makes `datasets` fingerprints spill bytecode into the log.
    "RAY_TRAIN_ENABLE_PRINT_PATCH": "0",
    "RAY_COLOR_PREFIX": "0",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    "TOKENIZERS_PARALLELISM": "false",
    # Threads that spin slow two processes on few cores down tenfold; threads that wait hardly do.
    "OMP_WAIT_POLICY": "PASSIVE",
}

# Every limit is many times what the step takes on two quiet cores: only what hangs meets it.
LIMITS = {
    # Prefect's temporary server answers: 14 s when it makes its tables, else 6 (its default: 20).
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "300",
    # One request to Prefect's API is answered (60).
    "PREFECT_API_REQUEST_TIMEOUT": "300",
    # A statement waits for another process's lock on Prefect's SQLite file (10).
    "PREFECT_SERVER_DATABASE_TIMEOUT": "120",
    # Prefect's server opens its database (5), and waits for a free connection to it (30).
    "PREFECT_SERVER_DATABASE_CONNECTION_TIMEOUT": "120",
    "PREFECT_SERVER_DATABASE_SQLALCHEMY_POOL_TIMEOUT": "120",
    # A local Ray registers its node: the wait behind "The current node timed out during startup".
    "RAY_raylet_start_wait_time_s": "300",
    # A client of Ray reaches the control service (5), gets an answer (60), or reaches it again.
    "RAY_gcs_rpc_server_connect_timeout_s": "60",
    "RAY_gcs_server_request_timeout_seconds": "300",
    "RAY_gcs_rpc_server_reconnect_timeout_s": "300",
    # Ray's dashboard, its agents and its workers start; each of them imports Ray first (60-100).
    "RAY_DASHBOARD_STARTUP_TIMEOUT_S": "300",
    "RAY_agent_register_timeout_ms": "300000",
    "RAY_worker_register_timeout_seconds": "300",
    # Ray takes a node for dead that has missed five health checks of this length (10 s).
    "RAY_health_check_timeout_ms": "60000",
    # All workers of a training have started (60); their group then has Ray's half hour to form.
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "600",
    # A worker of a training answers a health check (600), and leaves its process group (30).
    "RAY_TRAIN_WORKER_HEALTH_CHECK_TIMEOUT_S": "900",
    "TORCH_PROCESS_GROUP_SHUTDOWN_TIMEOUT_S": "120",
    # An MLflow server answers a request (120); one out of reach fails in seconds, not in minutes.
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "300",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
}

DEFAULTS = SWITCHES | LIMITS

SERVICE_START_S = 300.0  # a service answers: 21 s for Prefect's when it makes its tables
PROCESS_END_S = 60.0  # a process ends when asked to: some 5 s for Ray, which ends its daemons
# How often, and after how long, work that found DVC's lock taken is tried again: DVC never waits.
# `dvc add` and `dvc status` hold it for a second, `dvc repro` for a stage, too long to wait for.
BUSY_TRIES, BUSY_DELAY_S = 3, 10
FAMILY = "ADAPT_FAMILY"  # the mark of what one retraining has started, directly or not
WATCH_S, UNWIND_S = 1.0, 20.0  # how often a stage looks for its DVC; how long it may take to end
QUIET_S = 5.0  # after this long without a sign of life, a wait says what it waits for


def state_dir(root: Path) -> Path:
    """Folder of MLflow's store, Prefect's home and checkpoints: `ADAPT_STATE`, or `root`/.state."""
    return Path(os.environ.get("ADAPT_STATE") or root / ".state").resolve()


def cpus() -> int:
    """Processors that this process may use: `ADAPT_CPUS`, or all of the machine."""
    return int(os.environ.get("ADAPT_CPUS") or os.cpu_count() or 1)


def prepare(root: Path) -> None:
    """Set the switches and limits above, and Prefect's home in the state folder, where unset.

    `ADAPT_CPUS` limits the threads of torch, too, which reads theirs when it is imported.
    """
    if given := os.environ.get("ADAPT_CPUS"):
        os.environ.setdefault("OMP_NUM_THREADS", given)
    for key, value in DEFAULTS.items():
        os.environ.setdefault(key, value)
    os.environ.setdefault("PREFECT_HOME", str(state_dir(root) / "prefect"))


def parser(module: str, text: str | None, epilog: str = "") -> ArgumentParser:
    """The command line of a module, whose docstring `text` is printed by --help as it stands."""
    prog, raw = f"python -m {module}", RawDescriptionHelpFormatter
    return ArgumentParser(prog, description=text, formatter_class=raw, epilog=epilog)


class UsageError(ValueError):
    """Arguments that a command cannot take: one line, as for any other mistake of the user's."""


class Parser(ArgumentParser):
    """Raises its errors, so that they are printed as all others are; subparsers are alike."""

    def __init__(self, **options: Any) -> None:
        raw = RawDescriptionHelpFormatter
        super().__init__(formatter_class=raw, allow_abbrev=False, **options)

    def error(self, message: str) -> NoReturn:
        """Instead of the usage and an exit."""
        raise UsageError(f"{message}; {self.prog} --help shows examples")


def number_of(things: str) -> Callable[[str], int]:
    """The type of an argument that says how many, at least one.

    >>> number_of("rows")("3")
    3
    """

    def number(text: str) -> int:
        if not text.isdecimal() or int(text) < 1:
            raise ArgumentTypeError(f"{text!r} is no number of {things}")
        return int(text)

    return number


def independent() -> dict[str, str]:
    """The environment of a process that goes on when the retraining that started it is gone."""
    return {key: value for key, value in os.environ.items() if key != FAMILY}


@contextmanager
def bound_to_dvc() -> Iterator[None]:
    """End this process, as by SIGTERM, when the DVC command that started it is gone.

    A stage whose `dvc repro` was killed would write into a workspace that nobody watches. What was
    started without DVC is left alone.
    """
    above, done = _dvc_above() if "DVC_STAGE" in os.environ else None, threading.Event()
    if above is not None:
        threading.Thread(target=_end_after, args=[above, done], daemon=True).start()
    try:
        yield
    finally:
        done.set()


def _dvc_above() -> psutil.Process | None:
    """The nearest process above this one that is DVC's; a shell may be between the two."""
    for process in psutil.Process().parents():
        with suppress(psutil.Error):
            words = process.cmdline()[:3]
            if any(Path(word).name == "dvc" for word in words):
                return process
    return None


def _end_after(other: psutil.Process, done: threading.Event) -> None:
    while is_alive(other):
        if done.wait(WATCH_S):
            return
    os.kill(os.getpid(), signal.SIGTERM)
    # What does not unwind in time, because a library holds it, must end all the same.
    if not done.wait(UNWIND_S):
        os.kill(os.getpid(), signal.SIGKILL)


def is_alive(process: psutil.Process) -> bool:
    """Whether it still runs. One that nobody has waited for yet (a zombie) does not."""
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def began(process: int) -> int | None:
    """When the process of this number has begun, in the kernel's ticks, which no clock moves.

    None for one that has ended, or that nobody has waited for yet. Where the kernel does not say
    it, in seconds.
    """
    try:
        if not Path("/proc/self/stat").exists():
            return round(psutil.Process(process).create_time())
        _, _, words = Path(f"/proc/{process}/stat").read_text().rpartition(")")
    except (OSError, psutil.Error, ValueError, OverflowError):
        return None
    state, *others = words.split()
    return None if state == "Z" else int(others[18])


@cache
def machine() -> str:
    """What processes have in common that see each other by their numbers.

    Those of another user may be hidden, and containers share their host's name.
    """
    seen = [socket.gethostname(), str(os.getuid())]
    with suppress(OSError):
        seen.append(Path("/proc/sys/kernel/random/boot_id").read_text())
        seen.append(os.readlink("/proc/self/ns/pid"))
    return hashlib.sha256("/".join(seen).encode()).hexdigest()


@contextmanager
def announced(message: str) -> Iterator[None]:
    """Print `message` once if the block has not ended after `QUIET_S` seconds."""
    timer = threading.Timer(QUIET_S, print, [message], {"flush": True})
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


@contextmanager
def terminable() -> Iterator[None]:
    """Let SIGTERM and SIGHUP (a closed terminal) raise `SystemExit(128 + signal)`.

    `finally` and `with` blocks run then; by default both signals end Python on the spot.

    Does nothing outside the main thread, where Python does not deliver signals. A signal that is
    ignored, as under `nohup`, stays ignored. The handlers of before come back at the end.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def leave(number: int, frame: FrameType | None) -> None:
        signal.signal(number, signal.SIG_IGN)  # a second one must not interrupt the unwinding
        raise SystemExit(128 + number)

    previous = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    for number, handler in previous.items():
        if handler is not signal.SIG_IGN:
            signal.signal(number, leave)
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
