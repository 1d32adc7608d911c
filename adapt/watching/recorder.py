"""Logs the answers of a served model, on a thread of its own that no answer waits for.

What comes is kept in memory until it is written, every few seconds. That memory is bounded: while
the storage is away or the disk is full, the latest answers are not recorded, and one line says so
when it begins and one when it is over. A process that is killed loses what came since the last
writing.
"""

import io
import logging
import secrets
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
from PIL import Image

from adapt import addresses
from adapt.files import storage_errors
from adapt.names import one_line
from adapt.watching import signals
from adapt.watching.log import HOUR_S, SCHEMAS, TOKEN_COLUMNS, Kind, Log
from adapt.watching.settings import WatchConfig

FLUSH_S = 5.0
MOST = 2048  # answers that wait to be written
MOST_PIXELS = 1 << 26  # of pictures that wait, where they are kept
PARTS = 64  # files of an hour, which are joined then
CLOSE_S = 10.0
log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Served:
    """One answer that a server gave.

    pictures    (width, height, mode) of each, as they came
    question    its text, and `answer` that of the answer: their lengths are kept, and themselves
                only where `watch.texts` says so
    length      tokens
    values      what `signals.of_answer` has found, by name
    tokens      lists by column (`log.TOKEN_COLUMNS` and end), a value a token
    detector    version of the one that has warned; "" is the model's own
    images      the decoded pictures: what `signals.of_pictures` finds is kept, and themselves only
                where `watch.pictures` says so
    """

    id: str
    time: float  # seconds since 1970
    version: str
    policy: str
    pictures: Sequence[tuple[int, int, str]]
    question: str
    answer: str
    length: int
    finish: str
    values: Mapping[str, float]
    tokens: Mapping[str, Sequence[float]]
    images: Sequence[Image.Image] = ()
    detector: str = ""

    @classmethod
    def of(cls, answer: Any, *, threshold: float, **about: Any) -> "Served":
        """Of an answer of `adapt/serving/asked.py`; `about` is what that does not know: time,
        version, question, pictures and images.
        """
        columns = {
            name: [getattr(token, name) for token in answer.tokens]
            for name in ("end", *TOKEN_COLUMNS)
        }
        if answer.risk is None:  # no detector
            del columns["risk"]
        named = None if answer.risk is None else [one.risk or 0.0 for one in answer.named]
        return cls(
            id=answer.id,
            policy=answer.policy,
            answer=answer.text,
            length=len(answer.tokens),
            finish=answer.finish,
            detector=answer.detector,
            values=signals.of_answer(columns, named, threshold),
            tokens=columns,
            **about,
        )


@dataclass
class _Waiting:
    rows: dict[Kind, dict[str, Any]]
    images: Sequence[Image.Image]
    pixels: int
    hour: int


class Recorder:
    """`record` takes an answer and returns at once; `close` writes what is left.

    Nothing is recorded where `watch.log` is "". `clock` is for tests.
    """

    def __init__(
        self, config: WatchConfig, root: Path, clock: Callable[[], float] = time.time
    ) -> None:
        self._config, self._clock = config, clock
        self._place = config.place(root)
        self._writer = secrets.token_hex(4)
        self._key = secrets.token_bytes(16)  # of this process alone: see `signals.name_of`
        self._waiting: deque[_Waiting] = deque()
        self._pixels = self._lost = self._number = 0
        self._parts: dict[tuple[Kind, int], list[str]] = {}
        self._trouble, self._expired = "", -1
        self._lock, self._wake, self._ends = threading.Lock(), threading.Event(), False
        self._log: Log | None = None
        self._thread = threading.Thread(target=self._work, name="adapt-watching", daemon=True)
        if self._place:
            self._thread.start()

    def record(self, served: Served) -> None:
        """Take an answer; never waits for a disk or a network, and never raises for one."""
        if not self._place or self._ends:
            return
        one = self._row(served)
        with self._lock:
            if len(self._waiting) >= MOST:
                self._lost += 1
                return
            if self._pixels + one.pixels > MOST_PIXELS:
                one.images, one.pixels = (), 0
            self._pixels += one.pixels
            self._waiting.append(one)

    def close(self, seconds: float = CLOSE_S) -> None:
        """Write what is left and join this process's files; gives up after `seconds`."""
        self._ends = True
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join(seconds)

    # ---- rows ----------------------------------------------------------------------------------

    def _row(self, served: Served) -> _Waiting:
        about = {"id": served.id, "time": served.time, "version": served.version}
        row: dict[str, Any] = {
            **about,
            "policy": served.policy,
            "finish": served.finish,
            "detector": served.detector,
            "picture": signals.name_of(served.images, self._key),
            "modes": [mode for *_, mode in served.pictures],
            "said": len(served.answer),
            **{name: served.values.get(name) for name in signals.OF_ANSWER},
            "length": float(served.length),
            "question": float(len(served.question)),
            **_sizes(served),
            "token_end": served.tokens.get("end"),
            **{f"token_{name}": served.tokens.get(name) for name in TOKEN_COLUMNS},
        }
        rows: dict[Kind, dict[str, Any]] = {"signals": row}
        kept = served.images if self._config.pictures else ()
        if self._config.texts or kept:
            texts = {"question": served.question, "answer": served.answer}
            rows["texts"] = about | (texts if self._config.texts else {})
        pixels = sum(image.width * image.height for image in kept)
        return _Waiting(rows, kept, pixels, int(served.time) // HOUR_S)

    # ---- the thread ----------------------------------------------------------------------------

    def _work(self) -> None:
        while not self._ends:
            self._wake.wait(FLUSH_S)
            self._tried(self._flush)
            self._tried(self._tidy)
        self._tried(self._flush)
        self._tried(lambda: self._tidy(all_hours=True))

    def _tried(self, action: Callable[[], object]) -> None:
        """Do it; what a disk or a storage refuses is told once, until it works again."""
        try:
            action()
        except (*storage_errors(), pa.ArrowException) as error:
            said = getattr(error, "strerror", None) or str(error).strip().partition("\n")[0]
            reason = addresses.shown(said) or type(error).__name__
            if not self._trouble:
                where = addresses.shown(self._place)
                line = f"watch: {where}: {reason}; answers go on, and some may not be recorded"
                log.warning(one_line(line))
            self._trouble = reason

    def _opened(self) -> Log:
        self._log = self._log or Log(self._place)
        return self._log

    def _flush(self) -> None:
        """Write what waits, a file for each hour and kind; it is let go only when it is written."""
        with self._lock:
            waiting = list(self._waiting)
        for hour in sorted({one.hour for one in waiting}):
            of_hour = [one for one in waiting if one.hour == hour]
            for kind in SCHEMAS:
                if rows := [_pictured(one, kind) for one in of_hour if kind in one.rows]:
                    self._number += 1
                    path = self._opened().write(kind, rows, hour, self._writer, self._number)
                    self._parts.setdefault((kind, hour), []).append(path)
            done = set(map(id, of_hour))
            with self._lock:
                self._waiting = deque(one for one in self._waiting if id(one) not in done)
                self._pixels = sum(one.pixels for one in self._waiting)
        if waiting:
            self._recovered()

    def _recovered(self) -> None:
        with self._lock:
            lost, self._lost = self._lost, 0
        if self._trouble or lost:
            line = f"watch: recording again; {lost} answers were not recorded"
            log.warning(one_line(line))
        self._trouble = ""

    def _tidy(self, all_hours: bool = False) -> None:
        """Join the files of hours that are over, and delete what is older than it may become."""
        now = int(self._clock()) // HOUR_S
        for (kind, hour), parts in list(self._parts.items()):
            # An answer that took long is of an earlier hour: wait for one more.
            if all_hours or hour < now - 1 or len(parts) >= PARTS:
                del self._parts[kind, hour]
                if len(parts) > 1:
                    self._number += 1
                    self._opened().join(kind, parts, hour, self._writer, self._number)
        if self._expired != now:
            days = {"texts": self._config.keep_days, "signals": self._config.signals_days}
            for kind in SCHEMAS:
                if days[kind]:
                    self._opened().expire(kind, days[kind], self._clock())
            self._expired = now


def _sizes(served: Served) -> dict[str, float]:
    """What is kept of the pictures; their sizes are those that came, before any turning."""
    values = signals.of_pictures(served.images)
    if served.pictures:
        widths, heights, _ = zip(*served.pictures, strict=True)
        values |= {"width": sum(widths) / len(widths), "height": sum(heights) / len(heights)}
    return values


def _pictured(one: _Waiting, kind: Kind) -> dict[str, Any]:
    row = one.rows[kind]
    return row if kind == "signals" else row | {"pictures": [*map(_png, one.images)]}


def _png(image: Image.Image) -> bytes:
    content = io.BytesIO()
    image.save(content, format="PNG")
    return content.getvalue()
