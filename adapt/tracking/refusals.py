"""What MLflow refuses: told from an MLflow that is away, and put aside, so that the rest goes on.

A server that is down and a server that refuses one entry raise the same errors. After each, the
run is therefore asked for something that it must take. Where it does not, MLflow is `Away`, and
all is tried again later. Where it does, the entry is to blame: it is tried a few times, since a
server may stumble, halved if it has parts, and what remains goes into `refused.jsonl`.
"""

import csv
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from adapt.names import one_line
from adapt.params import InputError
from adapt.tracking import lines
from adapt.tracking.curves import Point
from adapt.tracking.store import reason

FILE = "refused.jsonl"
ROOM = 1 << 20  # bytes of refusals that are kept, and as many of older ones
WAITS_S = (0.5, 2.0)  # before an entry is tried again that a server has stumbled over
FINAL = {
    "INVALID_PARAMETER_VALUE",
    "BAD_REQUEST",
    "RESOURCE_DOES_NOT_EXIST",
    "RESOURCE_ALREADY_EXISTS",
    "NOT_IMPLEMENTED",
    "INVALID_STATE",
}  # what a second try does not change
# What a damaged file makes its readers raise.
DAMAGE = (ValueError, KeyError, TypeError, csv.Error)
ENOUGH = 3  # points of a curve that are refused, before the rest of it is left out unasked
T = TypeVar("T")


class Away(Exception):
    """MLflow does not answer, or takes nothing at all."""


class Gone(Exception):
    """There is nothing more to send of this journal: why."""


@dataclass(frozen=True)
class Refusals:
    """Those of the journal in `folder`; `answers`: whether MLflow takes anything for its run."""

    folder: Path
    answers: Callable[[], bool]
    counts: Counter[str] = field(default_factory=Counter)  # points, by curve

    def attempt(self, what: str, call: Callable[[], object]) -> None:
        """Do it; what MLflow refuses is put aside. Raises `Away`."""
        if problem := self._refused(call):
            self.aside(what, problem)

    def attempt_each(
        self, what: str, items: Sequence[T], send: Callable[[Sequence[T]], None]
    ) -> None:
        """Send all items, together if possible, so that only what is refused itself is missing."""
        items = [one for one in items if self.counts[_curve(one)] < ENOUGH]
        if not (problem := self._refused(lambda: send(items)) if items else ""):
            return
        if len(items) > 1:
            half = len(items) // 2
            self.attempt_each(what, items[:half], send)
            self.attempt_each(what, items[half:], send)
            return
        self.aside(f"{what}, {items[0]!r}", problem)
        if curve := _curve(items[0]):
            self.counts[curve] += 1

    def _refused(self, call: Callable[[], object]) -> str:
        """Why it is refused for good; "" when it is done."""
        raised: tuple[type[Exception], ...] = (*errors(), *DAMAGE)
        for wait in (*WAITS_S, 0.0):
            try:
                call()
                return ""
            except raised as error:
                problem = reason(error)
                if not self.answers():
                    raise Away(problem) from None
                if not wait or getattr(error, "error_code", "INTERNAL_ERROR") in FINAL:
                    return problem
            time.sleep(wait)
        raise AssertionError("the last try returns")

    def aside(self, what: str, problem: str) -> None:
        """Note it beside the journals, one line, and tell it to whom reads the sender's log."""
        path, name = self.folder.parent / FILE, self.folder.name
        print(one_line(f"run {name}: {what} is left out: {problem}"), flush=True)
        try:
            if path.exists() and path.stat().st_size > ROOM:
                path.replace(path.with_suffix(".old"))
            lines.append(path, {"run": name, "what": what[:2000], "problem": problem})
        except OSError:
            return

    def drop(self, why: str) -> None:
        """Put aside a whole journal."""
        self.aside("what is left of its record", why)


def _curve(item: object) -> str:
    """The curve of a point; "" for anything else."""
    return item.key if isinstance(item, Point) else ""


def errors() -> tuple[type[Exception], ...]:
    """What a store raises that is away, refuses something, or is none."""
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    return (MlflowException, SQLAlchemyError, OSError, InputError)
