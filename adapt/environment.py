"""Process environment of every entry point: telemetry off, quiet tools, one place for it.

`prepare()` only fills in what the user has not set, and must run before mlflow, ray, prefect or
transformers are imported: they read their switches at import. Stage launchers and flows call it
first.
"""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

DEFAULTS = {
    # Telemetry. MLflow accepts only the word "true"; DVC does not honour DO_NOT_TRACK.
    "DO_NOT_TRACK": "true",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DVC_NO_ANALYTICS": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    # Ray Train polls its workers every 2 s by default, which is most of the wall time of a small
    # job.
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",
    # Two helpers of Ray Train that a job of minutes does not need.
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
    "RAY_TRAIN_METRICS_ENABLED": "0",
    # Ray Train's patched print makes `datasets` fingerprints spill bytecode into the log.
    "RAY_TRAIN_ENABLE_PRINT_PATCH": "0",
    "RAY_COLOR_PREFIX": "0",
    # An unreachable MLflow server should fail in seconds, not after four minutes of retries.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    "TOKENIZERS_PARALLELISM": "false",
    # Spinning threads of two processes on few cores slow each other down tenfold; waiting ones
    # hardly.
    "OMP_WAIT_POLICY": "PASSIVE",
}


def state_dir(root: Path) -> Path:
    """Folder for runtime state (MLflow store, Prefect home, Ray checkpoints): `ADAPT_STATE`, or
    `.state` of `root`.
    """
    return Path(os.environ.get("ADAPT_STATE") or root / ".state").resolve()


def cpus() -> int:
    """Processors that this process may use: `ADAPT_CPUS`, or all of the machine."""
    return int(os.environ.get("ADAPT_CPUS") or os.cpu_count() or 1)


def prepare(root: Path) -> None:
    """Set the defaults above, and the homes of Prefect and its profile inside the project, where
    nothing is set.
    """
    for key, value in DEFAULTS.items():
        os.environ.setdefault(key, value)
    os.environ.setdefault("PREFECT_HOME", str(state_dir(root) / "prefect"))


@contextmanager
def terminable() -> Iterator[None]:
    """Let SIGTERM and a closed terminal (SIGHUP) unwind the stack as Ctrl-C does, so that `finally`
    and `with` blocks run; by default they end Python on the spot. Raises
    `SystemExit(128 + signal)`.

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
