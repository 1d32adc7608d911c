"""Writers that are in each other's way: MLflow looks and then writes, and of two the later fails.

It numbers a version by looking for the highest, and sets a tag or an alias by looking whether it is
there. Where another process has written in between, the database refuses the second, and so it does
where a lock was not to be had in time. All of these are sent again.
"""

import random
import time
from collections.abc import Callable
from typing import Any

TRIES = 20
WAIT_S = 0.2  # at most, before the next try
# What MLflow calls an error of the database; and the words of those that another writer causes.
REFUSED = "BAD_REQUEST"
IN_THE_WAY = ("Model Version creation error", "is locked", "deadlock", "could not serialize")


def again(write: Callable[..., Any], *words: Any, **named: Any) -> Any:
    """What `write` returns, which is called again while others are in its way.

    It has to be a write that may arrive twice.
    """
    from mlflow.exceptions import MlflowException

    for left in reversed(range(TRIES)):
        try:
            return write(*words, **named)
        except MlflowException as error:
            is_race = error.error_code == REFUSED or any(one in str(error) for one in IN_THE_WAY)
            if not is_race or left == 0:
                raise
            time.sleep(random.uniform(0, WAIT_S))
    raise AssertionError
