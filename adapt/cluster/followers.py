"""Who waits for a piece of work on the cluster: several may share it, and the last one ends it.

Each leaves a mark on the storage beside the work and renews it; a mark that is not renewed is that
of a process that was killed, or of a machine that is gone. Marks are compared by the storage's own
clock. On the machine where a process was killed this is known at once: whoever starts it again, and
then wants to be rid of the work, is not taken for the second of two.
"""

import os
import threading
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

from adapt.cluster import storage
from adapt.environment import began, machine
from adapt.files import storage_errors
from adapt.params import InputError

BEAT_S = 10.0
FRESH_S = 45.0  # a mark older than this is nobody's
LEAVE_S = 10.0  # how long a mark that is being renewed is waited for
MOST = 1000  # marks that are looked at
LARGEST = 4096  # bytes of a mark


class Follower:
    """This process among those that follow the work in `folder` (a URI)."""

    def __init__(self, folder: str) -> None:
        self._folder = f"{folder}/followers"
        self._name = uuid.uuid4().hex
        self._left = threading.Event()
        self._beating = threading.Thread(target=self._keep_beating, name="follower", daemon=True)

    def start(self) -> None:
        """Leave the mark, and renew it until `leave`."""
        self.beat()
        self._beating.start()

    def beat(self) -> None:
        """Renew the mark; a storage that is away for a moment is no reason to leave."""
        with suppress(*storage_errors()):
            storage.write_json(f"{self._folder}/{self._name}.json", _this_process())

    def _keep_beating(self) -> None:
        while not self._left.wait(BEAT_S):
            self.beat()

    def leave(self) -> None:
        """Take the mark away."""
        self._left.set()
        if self._beating.is_alive():  # or it might put the mark back
            self._beating.join(LEAVE_S)
        with suppress(*storage_errors()):
            storage.remove(f"{self._folder}/{self._name}.json")

    def is_alone(self) -> bool:
        """Whether nobody else follows the work; True where that cannot be found out."""
        self.beat()
        with suppress(*storage_errors()):
            marks = storage.modified(self._folder, MOST)
            mine = marks.pop(f"{self._name}.json", None)
            others = [name for name, time in marks.items() if mine and mine - time <= FRESH_S]
            return all(map(self._is_killed, others))
        return True

    def _is_killed(self, name: str) -> bool:
        """Whether the process of a mark was one of this machine, and has ended."""
        try:
            return _has_ended(storage.read_json(f"{self._folder}/{name}", LARGEST))
        except InputError:
            return False
        except FileNotFoundError:  # it has just left
            return True


def _this_process() -> dict[str, Any]:
    number = os.getpid()
    return {"machine": machine(), "process": number, "began": began(number)}


def _has_ended(mark: Mapping[str, Any]) -> bool:
    """False also for a process of another machine, and for a mark that is none."""
    number, then = mark.get("process"), mark.get("began")
    if not (isinstance(number, int) and isinstance(then, int)):
        return False
    return mark.get("machine") == machine() and began(number) != then


@contextmanager
def following(folder: str) -> Iterator[Follower]:
    """Follow the work in `folder` while the block lasts."""
    follower = Follower(folder)
    follower.start()
    try:
        yield follower
    finally:
        follower.leave()
