"""infra/Dockerfile: known instructions, sources that are there, and nothing but what is pinned."""

import re
import tomllib

import pytest

from tests.support.closure import ROOT

FILE = ROOT / "infra" / "Dockerfile"
KNOWN = {"FROM", "ARG", "RUN", "WORKDIR", "COPY", "USER", "ENV"}


@pytest.fixture(scope="module")
def steps() -> list[tuple[str, str]]:
    """Instructions and what they say, continued lines put together."""
    lines = [line for line in FILE.read_text().splitlines() if not line.startswith("#")]
    joined = re.sub(r"\\\n\s*", " ", "\n".join(lines))
    return [tuple(line.split(" ", 1)) for line in joined.splitlines() if line]


def test_every_source_is_in_the_project(steps: list[tuple[str, str]]) -> None:
    assert {name for name, _ in steps} == KNOWN
    for name, words in steps:
        if name == "COPY":
            *sources, _ = words.split()
            assert all((ROOT / source).exists() for source in sources)


def test_what_is_installed_is_pinned(steps: list[tuple[str, str]]) -> None:
    (run,) = [words for name, words in steps if name == "RUN" and "pip install" in words]
    installs = [part for part in run.split("&&") if "pip install" in part]
    assert "torch==$(sed -n 's/^torch==//p' constraints.txt)" in installs[0]
    assert "-c constraints.txt" in installs[1]
    extras = re.search(r"-e '\.\[([a-z0-9,]+)\]'", installs[1])
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert extras and set(extras[1].split(",")) <= set(project["optional-dependencies"])
    python = next(words for name, words in steps if name == "FROM").removeprefix("python:")
    assert python.startswith("3.11-") and ">=3.11" in project["requires-python"]


def test_it_does_not_run_as_root(steps: list[tuple[str, str]]) -> None:
    assert steps[-2][0] == "USER" and steps[-2][1] != "root"
    named = dict(part.split("=") for part in steps[-1][1].split())
    assert named["ADAPT_WORKSPACE"] == "/home/ray/adapt"
