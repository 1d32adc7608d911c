"""How long tests wait. Only something that hangs may meet a limit, so each has room for a machine
that is busy with other work; `pytest`'s own limit for one test is in pyproject.toml.
"""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

SERVER_START_S = 300
"""Prefect's server for tests answers: 10 s on a quiet machine."""
COMMAND_S = 600.0
"""A command that a test starts has ended."""
STEP_S = 120.0
"""Something that takes a second or two on a quiet machine has happened."""
ORPHANS_S = 60.0
"""What a killed process has started, and its folders, are gone: within 30 s, as is promised."""
RETRAINING_S = 1800.0
"""A whole retraining with the settings for tests has ended: a minute on a quiet machine."""
WHOLE_TEST_S = 3600
"""A test of a whole retraining has ended; pyproject.toml has the limit of the other tests."""


def until(condition: Callable[[], T], event: str, seconds: float = STEP_S) -> T:
    """The first true value of `condition`; fails, naming the event, after `seconds`."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, f"no {event} after {seconds:.0f} s"
        time.sleep(0.2)
    return value
