"""The runbook: every message that it quotes is one of the program's, and no ending is left out."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import pytest
import yaml

from flows import endings, events
from flows.serve import alarms
from tests.support.closure import ROOT

PAGE = (ROOT / "docs" / "runbook.md").read_text(encoding="utf-8")
SOURCES = [*(ROOT / "adapt").rglob("*.py"), *(ROOT / "flows").rglob("*.py")]


def literals(path: Path) -> Iterator[str]:
    """The texts of a file, with … where a value is filled in."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.JoinedStr):
            yield "".join(
                str(part.value) if isinstance(part, ast.Constant) else "…" for part in node.values
            )
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


def said() -> str:
    """All that the program can say, a text on each line."""
    texts = [text for path in SOURCES for text in literals(path)]
    for one in yaml.safe_load((ROOT / alarms.DECLARED).read_text())["automations"]:
        texts += [one.get("text", ""), *(act.get("message", "") for act in one.get("actions", []))]
    return "\n".join(" ".join(text.split()) for text in texts)


def rows(column: str) -> list[list[str]]:
    """The cells of all tables of the page whose first column has this name."""
    found, inside = [], False
    for line in PAGE.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split(" | ")]
        if not line.startswith("|"):
            inside = False
        elif cells[0].strip("| ") == column:
            inside = True
        elif inside and not line.startswith("|---"):
            found.append(cells)
    return found


QUOTED = [text for row in rows("message") for text in re.findall(r"`([^`]+)`", row[0])]


def test_there_are_messages() -> None:
    assert len(QUOTED) > 60


@pytest.fixture(scope="module")
def program() -> str:
    return said()


@pytest.mark.parametrize("text", QUOTED)
def test_a_quoted_message_is_one_of_the_program(text: str, program: str) -> None:
    assert text.strip("… ") in program


def test_no_ending_is_left_out() -> None:
    names = [row[0] for row in rows("state")]
    assert names == [*get_args(endings.Success), *get_args(endings.Failure), "Crashed"]
    assert set(events.EVENTS) <= set(names)


def test_commands_that_it_names_are_there() -> None:
    modules = set(re.findall(r"python -m ([\w.]+)", PAGE))
    assert len(modules) >= 5
    for module in modules:
        path = ROOT / module.replace(".", "/")
        assert path.with_suffix(".py").is_file() or (path / "__main__.py").is_file(), module
