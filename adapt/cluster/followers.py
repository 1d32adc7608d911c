"""Who waits for a piece of work on the cluster: several may share it, and the last one ends it.

Each leaves a mark on the storage beside the work and renews it; a mark that is not renewed is that
of a process that was killed, or of a machine that is gone. Marks are compared by the storage's own
clock.
"""

import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from adapt.cluster import storage
from adapt.files import storage_errors

BEAT_S = 10.0
FRESH_S = 45.0  # a mark older than this is nobody's
LEAVE_S = 10.0  # how long a mark that is being renewed is waited for
MOST = 1000  # marks that are looked at


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
            storage.write_json(f"{self._folder}/{self._name}.json", {"follows": self._folder})

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
            return mine is None or all(mine - other > FRESH_S for other in marks.values())
        return True


@contextmanager
def following(folder: str) -> Iterator[Follower]:
    """Follow the work in `folder` while the block lasts."""
    follower = Follower(folder)
    follower.start()
    try:
        yield follower
    finally:
        follower.leave()
