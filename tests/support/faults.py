"""The fault matrix: what breaks, what is kept, what is said, how the next run ends.

A test in `tests/faults/` is under `@fault(...)`, which says this in words. `docs/faults.md` is the
table of them all; a test compares it with the tests that there are.

    python -m tests.support.faults     # write docs/faults.md again
"""

import importlib
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "faults.md"
HEAD = """# What can break, and what happens then

Each line is a test under `tests/faults/`, which makes the fault happen and looks at what is left.
The table is written from the tests (`python -m tests.support.faults`).

| what breaks | what is kept | what is said | the next run | test |
|---|---|---|---|---|
"""
Test = TypeVar("Test", bound=Callable[..., Any])


@dataclass(frozen=True, kw_only=True)
class Fault:
    """A line of the table, in words for the person who runs the pipeline."""

    breaks: str
    keeps: str
    says: str
    then: str


def fault(breaks: str, *, keeps: str, says: str = "", then: str = "") -> Callable[[Test], Test]:
    """Put a test into the table of faults.

    `breaks`: what, and when; `keeps`: what is not lost; `says`: the line that a person sees;
    `then`: how the next run ends.
    """

    def marked(test: Test) -> Test:
        test.__fault__ = Fault(breaks=breaks, keeps=keeps, says=says, then=then)
        return test

    return marked


def table() -> str:
    """The page, from the tests that there are."""
    lines = []
    for path in sorted((ROOT / "tests" / "faults").glob("test_*.py")):
        module = importlib.import_module(f"tests.faults.{path.stem}")
        for name, test in inspect.getmembers(module, inspect.isfunction):
            if one := getattr(test, "__fault__", None):
                cells = [one.breaks, one.keeps, one.says, one.then, f"`{path.stem}.{name}`"]
                lines.append("| " + " | ".join(map(_cell, cells)) + " |")
    return HEAD + "".join(f"{line}\n" for line in sorted(lines))


def _cell(text: str) -> str:
    """As it stands: a page would take `|` for the end of the cell, and `<name>` for a tag."""
    return text.replace("|", "\\|").replace("<", "&lt;")


if __name__ == "__main__":
    PAGE.write_text(table(), encoding="utf-8")
