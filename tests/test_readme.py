"""The README says what is there."""

import re

from tests.support.closure import ROOT


def test_the_tree_names_every_module_and_no_other():
    tree = (ROOT / "README.md").read_text().split("## The files")[1].split("```")[1]
    listed, folders = set(), []
    for line in tree.splitlines():
        depth = (len(line) - len(line.lstrip())) // 2
        if found := re.match(r"\s*(\w+)/(\s|$)", line):
            folders = [*folders[:depth], found[1]]
        elif found := re.match(r"\s+(\w+\.py)\s{2,}\S", line):
            listed.add("/".join([*folders[:depth], found[1]]))
    there = {
        str(path.relative_to(ROOT))
        for folder in ("adapt", "flows")
        for path in (ROOT / folder).rglob("*.py")
        if path.name != "__init__.py"
    }
    assert listed == there


def test_no_path_of_a_machine_is_in_the_docs():
    docs = ("log.md", "method.md", "families.md")
    for name in (
        "README.md",
        "CONTRIBUTING.md",
        *(f"docs/{name}" for name in docs),
        "infra/README.md",
    ):
        assert not re.search(r"/(home|root|work|Users)/\w", (ROOT / name).read_text()), name
