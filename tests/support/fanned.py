"""Stage `answer` by actors that note what they begin, so that a test knows what was done twice.

    python -m tests.support.fanned RESULTS OUT NOTES ACTORS     # as the stage, to be killed

An actor of these takes its time over a part, and can be told to die over one.
"""

import os
import signal
import sys
import time
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from adapt import command, environment
from adapt.data.schema import Example
from adapt.generation import hands
from adapt.generation.said import Said
from adapt.stages import answer
from tests.stages.conftest import ANSWER

NOTES = "ADAPT_TEST_NOTES"  # the folder of notes, for actors
DIES_AT = "ADAPT_TEST_DIES_AT"  # the number of the note whose writer is killed, once
PART_S = 0.3
CONFIG = ANSWER.model_copy(update={"batch": 2})
Part = tuple[str, ...]


class Noting(hands.BenchHand):
    """Notes each part before it works it out."""

    def heard(self, rows: Sequence[Example], *more: Any) -> list[Said]:
        notes = Path(os.environ[NOTES])
        steer = str(more[0].steer)
        part = "\n".join([str(self.model.lm_head.weight.sum()), steer, *(row.id for row in rows)])
        (notes / f"{uuid.uuid4().hex}.part").write_text(part)
        if self._dies(notes):
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(PART_S)
        return super().heard(rows, *more)

    def _dies(self, notes: Path) -> bool:
        if len([*notes.glob("*.part")]) < int(os.environ.get(DIES_AT, sys.maxsize)):
            return False
        try:
            (notes / "died").touch(exist_ok=False)
        except FileExistsError:
            return False
        return True


def noted(notes: Path) -> list[Part]:
    """The parts that were begun: model, rule and rows."""
    return [tuple(path.read_text().splitlines()) for path in notes.glob("*.part")]


def run(results: Path, out: Path, notes: Path, actors: int) -> None:
    """The stage with such actors."""
    true = hands.BenchHand
    hands.BenchHand = Noting  # type: ignore[misc]
    os.environ[NOTES] = str(notes)
    try:
        config = CONFIG.model_copy(update={"actors": actors})
        answer.run(config, results, out, lambda step, points: None)
    finally:
        hands.BenchHand = true  # type: ignore[misc]
        del os.environ[NOTES]


if __name__ == "__main__":
    from tests.support import fanned  # what is pickled for actors must not be of `__main__`

    environment.prepare(Path.cwd())
    with command.edge("adapt answer"), environment.terminable():
        fanned.run(*map(Path, sys.argv[1:4]), int(sys.argv[4]))
