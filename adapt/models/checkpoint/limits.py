"""Limits of time and memory for what somebody else's file makes this program do."""

import ctypes
import threading
import time
from collections.abc import Callable
from typing import Any, TypeVar

import psutil

from adapt.params import InputError

T = TypeVar("T")
GROWTH = 2**30  # bytes
POLL = 0.05  # seconds


def within(seconds: float, problem: str, work: Callable[[], T], growth: int = GROWTH) -> T:
    """What `work` returns; InputError where it takes longer, or the process grows by more.

    What `work` raises is raised here. It runs in a thread, and is ended between two steps of the
    interpreter: for a loop in Python that is at once, for one long call when the call is over.
    """
    outcome: dict[str, Any] = {}

    def run() -> None:
        try:
            outcome["result"] = work()
        except BaseException as error:  # raised again in the caller's thread
            outcome["error"] = error

    process = psutil.Process()
    most, deadline = process.memory_info().rss + growth, time.monotonic() + seconds
    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(POLL)
    while thread.is_alive():
        grown = process.memory_info().rss > most
        if grown or time.monotonic() > deadline:
            _end(thread)
            amount = f"it takes more than {growth >> 20} MiB" if grown else f"within {seconds:g} s"
            raise InputError(f"{problem} ({amount})")
        thread.join(POLL)
    if "error" in outcome:
        raise outcome["error"]
    return outcome["result"]


def _end(thread: threading.Thread) -> None:
    """Raise SystemExit in another thread, and give it a second to take it."""
    assert thread.ident is not None
    raising = ctypes.pythonapi.PyThreadState_SetAsyncExc
    raising(ctypes.c_ulong(thread.ident), ctypes.py_object(SystemExit))
    thread.join(1.0)
