"""What the sender does: bring all journals of a workspace to MLflow until none waits.

An MLflow that is away is asked again after 1, 2, 4 and at last every 60 seconds, as long as a run
is open, and when somebody wakes the sender. A journal that MLflow does not take keeps up no other.
"""

import json
import logging
import os
import shutil
import time
from dataclasses import dataclass, field
from pathlib import Path

from adapt.files import locked, whole_file
from adapt.names import one_line
from adapt.tracking import journal, sender
from adapt.tracking.outbox import Outbox
from adapt.tracking.refusals import DAMAGE, Away, Gone, errors
from adapt.tracking.store import Store, TrackingConfig, reason, run_of

BEAT_S = 0.5  # between two looks at the journals
LINGER_S = 3.0  # after the last run has ended: `dvc repro` begins its next stage sooner
LONGEST_WAIT_S = 60.0  # between two tries to reach MLflow
MAKING_S = 60.0  # a journal is made, or removed, in less


@dataclass
class Sender:
    """What one sender knows; it holds the lock."""

    root: Path
    trouble: str = ""
    is_away: bool = False
    _later: dict[Path, float] = field(default_factory=dict)  # journals that MLflow does not take
    _stores: dict[str, Store] = field(default_factory=dict)
    _outboxes: dict[Path, Outbox] = field(default_factory=dict)

    def run(self) -> bool:
        """Send until no run is open, and all is sent or cannot be; returns whether some is left."""
        self._sweep()
        wait, busy_until = BEAT_S, time.monotonic() + LINGER_S
        while True:
            left = self.once()
            is_open = any(map(journal.is_held, left))
            if self.is_away and not is_open:
                return True
            if is_open or set(left) - self._later.keys():
                busy_until = time.monotonic() + LINGER_S
            if time.monotonic() > busy_until or not journal.home(self.root).exists():
                return bool(left)
            wait = min(2 * wait, LONGEST_WAIT_S) if self.is_away else BEAT_S
            self._sleep(wait)

    def once(self) -> list[Path]:
        """Send all that there is now; returns the journals that are left, sets `trouble`."""
        trouble, self.is_away = "", False
        now = time.monotonic()
        self._later = {one: when for one, when in self._later.items() if when > now}
        for folder in sender.ours(self.root):
            if self.is_away or folder in self._later:
                continue
            if problem := self._problem(folder):
                trouble, self.is_away = problem, not self._answers()
                # It may be this journal alone, which must not keep up the others.
                self._later[folder] = now + LONGEST_WAIT_S
        if self.is_away:
            self._later.clear()
        self._tell(trouble or (self.trouble if self._later else ""))
        return sender.ours(self.root)

    def _problem(self, folder: Path) -> str:
        """Send a journal; returns why that does not go on."""
        # Also for an entry that another version of this program has written.
        raised: tuple[type[Exception], ...] = (*errors(), *DAMAGE)
        try:
            if self._outbox(folder).send():
                self._outboxes.pop(folder)
            return ""
        except Away as away:
            problem = str(away)
        except raised as error:
            problem = reason(error)
        # What was asked before may no longer be so.
        self._stores.clear()
        self._outboxes.clear()
        return problem

    def _outbox(self, folder: Path) -> Outbox:
        if folder not in self._outboxes:
            self._outboxes[folder] = Outbox(folder, self._store, self._find)
        return self._outboxes[folder]

    def _store(self, experiment: str) -> Store:
        """The store, opened; the name of a model does not matter here."""
        if experiment not in self._stores:
            config = TrackingConfig(experiment=experiment, model="model")
            self._stores[experiment] = Store(self.root, config)
        return self._stores[experiment]

    def _find(self, identity: str, store: Store) -> str | None:
        """MLflow's id of a run that is known by its journal's, or by MLflow's own."""
        folder = journal.home(self.root) / identity
        if folder in sender.ours(self.root):
            try:
                return self._outbox(folder).run_id
            except Gone:
                return None
        return run_of(store, identity)

    def _answers(self) -> bool:
        """Whether MLflow answers at all."""
        try:
            self._store("adapt").client.search_experiments(max_results=1)
        except errors():
            self._stores.clear()
            return False
        return True

    def _sleep(self, seconds: float) -> None:
        """Wait, at most until somebody wants it to be sent."""
        called, end = sender.called(self.root), time.monotonic() + seconds
        while time.monotonic() < end and sender.called(self.root) == called:
            time.sleep(min(BEAT_S, seconds))

    def _tell(self, trouble: str) -> None:
        """Leave a note, and a line in the log when something has changed."""
        if trouble != self.trouble:
            print(one_line(f"MLflow: {trouble or 'answers again'}"), flush=True)
        if trouble or sender.last_trouble(self.root):
            self._leave_note(trouble)
        self.trouble = trouble

    def _leave_note(self, trouble: str) -> None:
        try:
            with whole_file(sender.note(self.root)) as partial:
                partial.write_text(json.dumps({"pid": os.getpid(), "trouble": trouble}))
        except OSError:
            return

    def _sweep(self) -> None:
        """Remove what processes left that died while they made or removed a journal."""
        for pattern in (journal.NEW, journal.DONE):
            for folder in journal.home(self.root).glob(f"{pattern}*"):
                if _is_left_behind(folder):
                    shutil.rmtree(folder, ignore_errors=True)


def send(root: Path) -> None:
    """The sender: send until nothing is left to do, unless another process does so already."""
    _be_quiet()
    while True:
        try:
            with locked(sender.lock(root), wait=False):
                is_left = Sender(root).run()
        except BlockingIOError:
            return
        # Who opened a run just now has seen our lock, and started nobody.
        if is_left or not sender.ours(root):
            return


def flush(root: Path, seconds: float) -> list[Path]:
    """Send now what runs have left that have ended; returns the journals that are left after it.

    Ends early where MLflow does not answer. Where another process sends, this waits for that.
    """
    _be_quiet()
    deadline = time.monotonic() + seconds
    sender.wake(root)
    asked = time.time()
    while ended := _ended(root):
        try:
            with locked(sender.lock(root), wait=False):
                Sender(root).once()
                return _ended(root)
        except BlockingIOError:
            has_failed = sender.last_trouble(root) and sender.note(root).stat().st_mtime > asked
        if has_failed or time.monotonic() > deadline:
            return ended
        time.sleep(BEAT_S / 2)
    return []


def _ended(root: Path) -> list[Path]:
    """The journals of runs that nobody has open, and that this process can send."""
    return [folder for folder in sender.ours(root) if not journal.is_held(folder)]


def _is_left_behind(folder: Path) -> bool:
    """Whether nobody is about to make or remove it any more."""
    try:
        age = time.time() - folder.stat().st_mtime
    except FileNotFoundError:
        return False
    return age > MAKING_S and not journal.is_held(folder)


def _be_quiet() -> None:
    """MLflow logs a traceback of SQLAlchemy's for each failure; one line of ours is enough."""
    logging.getLogger("mlflow").setLevel(logging.CRITICAL)
