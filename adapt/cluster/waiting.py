"""Work on Ray that is followed from here: what it waits for is said, and not waited for for ever.

Ray queues what has no room without a word: workers whose node was lost, a GPU that others use. The
work itself blocks, deaf to signals, and puts a handler of its own in the place of Ctrl-C's; so it
has a thread to itself, and this one looks at the queue.
"""

import math
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, Generic, TypeVar

from adapt.names import one_line
from adapt.params import InputError

T = TypeVar("T")
LOOK_S = 2.0
QUIET_S = 10.0  # a shorter wait is not worth a word
SAY_S = 60.0
GAP_S = 10.0  # Ray takes workers that found no room out of its queue, and puts them in again


def followed(work: Callable[[], T], minutes: float, least: Mapping[str, float] = {}) -> T:
    """`work()`; InputError after its workers have waited for `minutes` (0: never) in a row.

    `least`: what the cluster must have, by resource, before Ray queues anything.
    """
    thread = _Thread(work)
    thread.start()
    queue = Queue(minutes)
    while not thread.ended.wait(LOOK_S):
        queue.look(wanted() or lacking(least), time.monotonic())
    return thread.outcome()


class _Thread(threading.Thread, Generic[T]):
    """A thread with an outcome; it dies with the process."""

    def __init__(self, work: Callable[[], T]) -> None:
        super().__init__(daemon=True)
        self.ended = threading.Event()
        self._work = work
        self._result: list[T] = []
        self._error: BaseException | None = None

    def run(self) -> None:
        try:
            self._result.append(self._work())
        except BaseException as error:  # raised again where it is waited for
            self._error = error
        finally:
            self.ended.set()

    def outcome(self) -> T:
        if self._error is not None:
            raise self._error
        return self._result[0]


class Queue:
    """How long something has been waited for: says so now and then, and ends the wait."""

    def __init__(self, minutes: float) -> None:
        self._limit_s = minutes * 60
        self._since: float | None = None
        self._free: float | None = None  # since when nothing is wanted
        self._said = -math.inf

    def look(self, wants: Mapping[str, float], now: float) -> None:
        """Take notice of what is wanted at `now` (seconds); nothing: the wait is over."""
        if not wants:
            self._free = now if self._free is None else self._free
            return
        if self._free is not None and now - self._free > GAP_S:
            self._since, self._said = None, -math.inf
        self._free = None
        self._since = now if self._since is None else self._since
        waited, what = now - self._since, in_words(wants)
        if self._limit_s and waited > self._limit_s:
            problem = f"no node has had {what} for the workers in {self._limit_s / 60:.0f} min"
            advice = "the last checkpoint is kept; run again when there is room on the cluster"
            raise InputError(f"train.wait_minutes: {problem}; {advice}")
        if waited > QUIET_S and now - self._said > SAY_S:
            self._said = now
            print(
                one_line(f"train: waiting for {what} since {_span(waited)}"),
                file=sys.stderr,
                flush=True,
            )


def wanted() -> dict[str, float]:
    """What placement groups of this job wait for: amount by resource."""
    import ray

    job = ray.get_runtime_context().get_job_id()
    total: Counter[str] = Counter()
    for identity, group in ray.util.placement_group_table().items():
        # The last bytes of a group's id are its job's.
        if identity.endswith(job) and group["state"] in ("PENDING", "RESCHEDULING"):
            total.update(_missing(group))
    return dict(total)


def lacking(least: Mapping[str, float]) -> dict[str, float]:
    """How much less than `least` all nodes of the cluster have together."""
    import ray

    there = ray.cluster_resources() if least else {}
    missing = {name: count - there.get(name, 0.0) for name, count in least.items()}
    return {name: count for name, count in missing.items() if count > 0}


def _missing(group: Mapping[str, Any]) -> Counter[str]:
    """The bundles of a group that have no node."""
    total: Counter[str] = Counter()
    for number, bundle in group["bundles"].items():
        if not group["bundles_to_node_id"].get(number):
            total.update({name: int(count) for name, count in bundle.items()})
    return total


def in_words(wants: Mapping[str, float]) -> str:
    """
    >>> in_words({"CPU": 1.0, "GPU": 2.0})
    '1 CPU and 2 GPU'
    """
    return " and ".join(f"{count:g} {name}" for name, count in sorted(wants.items()))


def _span(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 60 else f"{seconds / 60:.0f} min"
