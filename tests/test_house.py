"""The house: imports go one way, rooms are few, functions are short, name plates hold no code."""

import ast
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.closure import ROOT

SOURCES = [path for folder in ("adapt", "flows") for path in sorted((ROOT / folder).rglob("*.py"))]
TYPES = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:"
TOP = {
    "",
    *(".ci", ".dvc", ".dvcignore", ".gitignore", ".pre-commit-config.yaml"),
    *("CONTRIBUTING.md", "LICENSE", "Makefile", "README.md", "constraints.txt", "pyproject.toml"),
    *("dvc.yaml", "dvc.lock", "params.yaml", "params.schema.json"),
    *("adapt", "benchmarks", "docs", "flows", "infra", "recipes", "results", "tests"),
}
LONGEST = 50  # lines of a function, its docstring included


def lint(folder: Path) -> subprocess.CompletedProcess[str]:
    command = [str(Path(sys.executable).parent / "lint-imports"), "--no-cache"]
    env = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(folder)}
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=300)


@pytest.mark.parametrize(
    ("file", "line", "says"),
    [
        (None, "", ""),
        ("adapt/attention/rows.py", "from adapt.generation import answer", "Rooms"),
        ("adapt/metrics/chair.py", "if False:\n    from flows import plan", "Flows"),
        ("adapt/params.py", f"{TYPES}\n    from adapt.launch import launch", "Rooms"),
        ("adapt/data/pen.py", "from adapt.data import drawings", "No circle"),
        ("adapt/evaluation/judge.py", "def later():\n    from adapt.models import load", "Judging"),
        ("adapt/cellar.py", "", "Rooms"),
    ],
)
def test_imports_go_one_way_and_the_check_can_fail(tmp_path, file, line, says):
    for folder in ("adapt", "flows"):
        shutil.copytree(ROOT / folder, tmp_path / folder)
    shutil.copy2(ROOT / "pyproject.toml", tmp_path)
    if file:
        with (tmp_path / file).open("a") as planted:
            planted.write(f"\n{line}\n")
    done = lint(tmp_path)
    assert done.returncode == (1 if file else 0), done.stdout
    broken = [name for name in done.stdout.splitlines() if " BROKEN" in name]
    assert not file or any(says in name for name in broken)


def test_nothing_else_is_kept_at_the_top():
    """Such as a database that a tool has left in the folder that it ran in."""
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert {name.split("/")[0] for name in listed.stdout.split("\0")} <= TOP


def test_a_handful_of_modules_stand_at_the_top():
    assert (
        len([path for path in SOURCES if path.parent == ROOT / "adapt" and path.stem != "__init__"])
        <= 9
    )
    rooms = {path.parent for path in SOURCES}
    assert len(rooms) <= 29


@pytest.mark.parametrize("path", [str(path.relative_to(ROOT)) for path in SOURCES])
def test_functions_are_short(path):
    tree = ast.parse((ROOT / path).read_text())
    functions = [n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)]
    long = [f.name for f in functions if f.end_lineno - f.lineno >= LONGEST]
    assert not long


@pytest.mark.parametrize(
    "path",
    [p.relative_to(ROOT) for p in SOURCES if p.name == "__init__.py" and p.parent.name != "flows"],
)
def test_a_name_plate_says_what_lives_here_and_nothing_else(path):
    body = ast.parse((ROOT / path).read_text()).body
    assert len(body) == 1 and isinstance(body[0], ast.Expr), "a docstring: what lives here"
