"""The files inside adapt/ that a stage's result can depend on: its import closure, found by
reading, not importing.

Imports inside functions count. What stands under `if TYPE_CHECKING` or `if __name__ == "__main__"`
does not: it never runs, or is how the stage is launched (configuration reading, tracking), not what
it computes. `python -m tests.support.closure` writes the lists into dvc.yaml: a folder where the
closure has all of its modules.
"""

import ast
import re
import textwrap
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
WIDTH = 118  # of a line of dvc.yaml
STAGES = ("data", "base", "pairs", "train", "answer", "evaluate")


def closure(module: str) -> set[str]:
    """Paths, relative to the project's root, of `module` and of everything in adapt/ that it
    imports.
    """
    found: set[str] = set()
    open_ = [module]
    while open_:
        path = _file(open_.pop())
        if path is None or str(path) in found:
            continue
        found.add(str(path))
        open_ += _imports(ast.parse((ROOT / path).read_text()))
    return found


def listed(stage: str) -> list[str]:
    """The closure of a stage as dvc.yaml lists it."""
    paths = closure(f"adapt.stages.{stage}")
    # A folder comes before those inside it, for which it then stands as well.
    for folder in sorted({str(Path(path).parent) for path in paths} - {"adapt"}):
        if modules(folder) <= paths:
            paths = paths - modules(folder) | {folder}
    return sorted(paths)


def modules(folder: str) -> set[str]:
    """The modules of a folder that DVC sees, its name plate left out."""
    files = (ROOT / folder).rglob("*.py")
    found = {str(file.relative_to(ROOT)) for file in files if file.name != "__init__.py"}
    return found - ignored()


def ignored() -> set[str]:
    """The modules that `.dvcignore` names."""
    lines = (ROOT / ".dvcignore").read_text().splitlines()
    return {line for line in lines if line.endswith(".py")}


def _file(module: str) -> Path | None:
    """The module's file; packages hold no code (a test checks it), so their `__init__.py` is no
    dependency.
    """
    path = Path(*module.split(".")).with_suffix(".py")
    return path if (ROOT / path).exists() else None


def _imports(tree: ast.Module) -> list[str]:
    names: list[str] = []
    for node in _executed(tree):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, "imports are absolute"
            names += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    return [name for name in names if name.startswith("adapt.")]


def _executed(node: ast.AST) -> list[ast.AST]:
    nodes = [node]
    for child in ast.iter_child_nodes(node):
        if not (isinstance(child, ast.If) and _is_guard(child.test)):
            nodes += _executed(child)
    return nodes


def _is_guard(test: ast.expr) -> bool:
    return ast.unparse(test) in ("TYPE_CHECKING", "__name__ == '__main__'")


def rewritten(text: str) -> str:
    """dvc.yaml with the closures of today; the results that stages read stay as they are."""
    for stage in STAGES:
        block = re.compile(
            rf"(  {stage}:\n.*?    deps:\n)      \[(.*?)\]\n(    params:)", re.DOTALL
        )
        match = block.search(text)
        assert match, stage
        read = [dep for dep in re.split(r",\s*", match[2]) if dep.startswith("results/")]
        deps = ", ".join([*listed(stage), *read])
        indents = {"initial_indent": "      [", "subsequent_indent": "       "}
        lines = textwrap.fill(deps, WIDTH, break_on_hyphens=False, **indents)
        text = text.replace(match[0], f"{match[1]}{lines}]\n{match[3]}")
    return text


if __name__ == "__main__":
    graph = ROOT / "dvc.yaml"
    graph.write_text(rewritten(graph.read_text()))
