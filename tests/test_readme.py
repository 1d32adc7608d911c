"""The README says what is there: every room, and the places that people look for."""

import ast
import re

import pytest

from tests.support.closure import ROOT

README = (ROOT / "README.md").read_text()
PLACES = re.findall(
    r"\[`([\w/]+\.py)`\]\([^)]*\): ((?:`\w+`(?:, )?)+)",
    README.split("## Where to look")[1].split("\n## ")[0],
)


def test_the_tree_names_every_room_and_no_other():
    tree = README.split("## The files")[1].split("```")[1]
    listed, above = set(), []
    for line in tree.splitlines():
        if room := re.match(r"( *)(\w+)/(\s|$)", line):
            above = [*above[: len(room[1]) // 2], room[2]]
            listed.add("/".join(above))
    there = {
        str(path.parent.relative_to(ROOT))
        for folder in ("adapt", "flows")
        for path in (ROOT / folder).rglob("__init__.py")
    }
    assert listed - {"infra", "benchmarks", "recipes"} == there


@pytest.mark.parametrize(("path", "symbols"), PLACES)
def test_what_people_look_for_is_where_the_readme_says(path, symbols):
    tree = ast.parse((ROOT / path).read_text())
    defined = {n.name for n in ast.walk(tree) if isinstance(n, ast.FunctionDef | ast.ClassDef)}
    assert set(re.findall(r"`(\w+)`", symbols)) <= defined


def test_the_four_places_are_named():
    table = README.split("## Where to look")[1].split("\n## ")[0]
    for sought in (
        "the ADAPT loss",
        "where steering is decided",
        "moves the champion",
        "metric definitions",
    ):
        assert sought in table
    assert {
        "adapt/preference/losses.py",
        "adapt/generation/steer.py",
        "flows/promote/deciding.py",
    } <= {path for path, _ in PLACES}
    assert "adapt/metrics/chair.py" in {path for path, _ in PLACES}


def test_links_lead_somewhere():
    for name in (
        "README.md",
        "CONTRIBUTING.md",
        "infra/README.md",
        "docs/reproduce.md",
        "docs/formats.md",
    ):
        text = (ROOT / name).read_text()
        for link in re.findall(r"\]\(([^)#:]+)\)", text):
            assert (ROOT / name).parent.joinpath(link).exists(), f"{name}: {link}"


def test_no_path_of_a_machine_is_in_the_docs():
    docs = ("log.md", "method.md", "families.md")
    for name in ("README.md", "CONTRIBUTING.md", *(f"docs/{d}" for d in docs), "infra/README.md"):
        assert not re.search(r"/(home|root|work|Users)/\w", (ROOT / name).read_text()), name
