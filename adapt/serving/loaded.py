"""The model that answers now, and the next one, which is loaded beside it.

A version that cannot be served is told in one line, and the one before goes on. A batch that has
begun ends on the model that it began with.
"""

import shutil
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from adapt.cluster.local import private_folder
from adapt.params import InputError, require
from adapt.serving.source import Source

if TYPE_CHECKING:
    from adapt.metrics.detection import Detector
    from adapt.serving.answerer import Answerer

Open = Callable[[Path, str], "Answerer"]


class Loaded:
    """Holds the answerer of the moment and follows its source.

    Args:
        source: where versions come from.
        opened: makes an answerer of a folder and a version.
        follow_s: how often the source is asked for its version.
    """

    def __init__(self, source: Source, opened: Open, follow_s: float) -> None:
        self._source, self._opened, self._follow_s = source, opened, follow_s
        self._place = Path(tempfile.mkdtemp(prefix="adapt-model-", dir=private_folder()))
        self._stopped = threading.Event()
        self._refused: str | None = None
        self._unfit: dict[str, str] = {}  # detectors that cannot be read, and why
        self.answerer: Answerer | None = None
        self.trouble, self.reloads = "", -1
        self.look()
        self._thread = threading.Thread(target=self._follow, name="follows", daemon=True)
        self._thread.start()

    def model(self) -> "Answerer":
        """The answerer of the moment; `InputError` where no version could be loaded yet."""
        if self.answerer is None:
            raise InputError(self.trouble or "no model is loaded")
        return self.answerer

    def look(self) -> None:
        """Load what the source names now, if it is another version, or has another detector."""
        version = None
        try:
            version = self._source.version()
            if self.answerer is None or version != self.answerer.version:
                if version == self._refused:
                    return
                self._take(version)
            self._warn(self.model())
        except InputError as error:
            # What cannot be served is not fetched again and again; what cannot be asked is.
            self._refused, self.trouble = version, str(error)
        else:
            self._refused, self.trouble = None, ""

    def _take(self, version: str) -> None:
        to = self._place / "next"
        try:
            self.answerer = self._opened(self._source.folder(version, to), version)
        finally:
            # What an answerer needs it has read, or holds open.
            shutil.rmtree(to, ignore_errors=True)
        self.reloads += 1

    def _warn(self, by: "Answerer") -> None:
        """Take the last detector that was fitted again for this version."""
        number = self._source.detector(by.version)
        if number == by.detector_version:
            return
        # What cannot be read is told again, but not fetched.
        if number in self._unfit:
            raise InputError(self._unfit[number])
        content = self._source.fitted_again(number)
        try:
            self.answerer = by.warned_by(_served(content, f"detector {number}"), number)
        except InputError as error:
            self._unfit[number] = str(error)
            raise

    def _follow(self) -> None:
        while not self._stopped.wait(self._follow_s):
            self.look()

    def close(self) -> None:
        """Follow no longer; what was fetched is removed."""
        self._stopped.set()
        shutil.rmtree(self._place, ignore_errors=True)


def _served(content: bytes, where: str) -> "Detector":
    """The variant that warns."""
    from adapt.metrics import detection  # here, since the command has no need of it
    from adapt.serving.bundle import SERVED

    found = detection.parsed(content, where)
    require(SERVED in found, where, f"has no variant {SERVED}")
    return found[SERVED]
