"""Options that nothing reads, found by the type checker: a field of a `Settings` class is renamed
in a copy of the sources, and whoever reads it is then told that there is no such attribute.

That is stricter than searching for the name: another class's field of the same name does not count,
nor does a validator, which reads a field only to refuse it. What is read through `Any` is not seen.
"""

import ast
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

FOLDERS = ("adapt", "flows")


@dataclass(frozen=True)
class Option:
    """One field: the file of its class, the class, its name; `is_section` if its type is a
    `Settings` class, too.
    """

    file: str
    owner: str
    name: str
    is_section: bool

    @property
    def alias(self) -> str:
        """A name for the class that no other file's class has: mypy tells a class by its name."""
        return f"{self.owner}_{re.sub(r'[^A-Za-z0-9]', '_', self.file)}"

    def __str__(self) -> str:
        return f"{self.file}: {self.owner}.{self.name}"


def unread(root: Path, scratch: Path, planted: Mapping[str, str] | None = None) -> list[str]:
    """The options below `root` that nothing reads.

    `planted` maps a file to lines that are put at the end of it in the copy, to see that it works.
    """
    # Sections in a run of their own: without `config.anchor`, nobody could be seen to read
    # `config.anchor.anchor_tokens`.
    options = _options(_copied(root, scratch / "plain", planted or {}))
    reads: set[tuple[str, str]] = set()
    for is_section in (False, True):
        copy = _copied(root, scratch / "renamed", planted or {})
        _rename(copy, [option for option in options if option.is_section == is_section])
        reads |= _reads(copy, scratch / "cache")
    return [str(option) for option in options if (option.alias, option.name) not in reads]


def _copied(root: Path, copy: Path, planted: Mapping[str, str]) -> Path:
    shutil.rmtree(copy, ignore_errors=True)
    for folder in FOLDERS:
        caches = shutil.ignore_patterns("__pycache__")
        shutil.copytree(root / folder, copy / folder, ignore=caches)
    shutil.copy(root / "pyproject.toml", copy)
    for file, lines in planted.items():
        with (copy / file).open("a", encoding="utf-8") as opened:
            opened.write(f"\n\n{lines}\n")
    return copy


def _settings_classes(tree: ast.Module) -> list[ast.ClassDef]:
    classes = [node for node in tree.body if isinstance(node, ast.ClassDef)]
    return [c for c in classes if any(ast.unparse(base) == "Settings" for base in c.bases)]


def _fields(owner: ast.ClassDef) -> list[ast.AnnAssign]:
    annotated = [node for node in owner.body if isinstance(node, ast.AnnAssign)]
    return [node for node in annotated if not ast.unparse(node.target).startswith("__")]


def _options(copy: Path) -> list[Option]:
    trees = {
        str(path.relative_to(copy)): ast.parse(path.read_text())
        for folder in FOLDERS
        for path in sorted((copy / folder).rglob("*.py"))
    }
    owners = [(file, owner) for file, tree in trees.items() for owner in _settings_classes(tree)]
    sections = {owner.name for _, owner in owners}
    return [
        Option(
            file,
            owner.name,
            ast.unparse(field.target),
            _names(field.annotation) & sections != set(),
        )
        for file, owner in owners
        for field in _fields(owner)
    ]


def _names(annotation: ast.expr) -> set[str]:
    return {node.id for node in ast.walk(annotation) if isinstance(node, ast.Name)}


def _rename(copy: Path, options: Iterable[Option]) -> None:
    """Rename the fields, and their classes, which keep their old name as an alias."""
    by_file: dict[str, list[Option]] = {}
    for option in options:
        by_file.setdefault(option.file, []).append(option)
    for file, of_file in by_file.items():
        text = (copy / file).read_text()
        lines, renamed = text.splitlines(), {(o.owner, o.name): o for o in of_file}
        aliases: dict[int, str] = {}
        for owner in _settings_classes(ast.parse(text)):
            for field in _fields(owner):
                option = renamed.get((owner.name, ast.unparse(field.target)))
                if option:
                    at, start = field.lineno - 1, field.target.col_offset
                    lines[at] = f"{lines[at][:start]}renamed_{lines[at][start:]}"
                    aliases[owner.end_lineno or 0] = f"{owner.name} = {option.alias}"
                    head = lines[owner.lineno - 1]
                    lines[owner.lineno - 1] = re.sub(
                        rf"class {owner.name}\b", f"class {option.alias}", head
                    )
        for after, alias in sorted(aliases.items(), reverse=True):
            lines.insert(after, alias)
        (copy / file).write_text("\n".join(lines) + "\n")


def _reads(copy: Path, cache: Path) -> set[tuple[str, str]]:
    """Class (by its alias) and name of every attribute that mypy misses, but in validators."""
    command = [sys.executable, "-m", "mypy", "--no-error-summary", f"--cache-dir={cache}"]
    done = subprocess.run(command, cwd=copy, capture_output=True, text=True, check=False)
    assert done.returncode == 1 and not done.stderr, done.stdout + done.stderr
    owner = r'(?:"(\w+)"|Item "(\w+)" of "[^"]*")'  # the second where it may be None
    pattern = rf'^(\S+?):(\d+): error: {owner} has no attribute "(\w+)"'
    missing = re.findall(pattern, done.stdout, flags=re.MULTILINE)
    validators = {file: _validator_lines(copy / file) for file, *_ in missing}
    return {
        (plain or item, name)
        for file, line, plain, item, name in missing
        if int(line) not in validators[file]
    }


def _validator_lines(path: Path) -> set[int]:
    lines: set[int] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef):
            decorators = " ".join(map(ast.unparse, node.decorator_list))
            if "validator" in decorators:
                lines |= set(range(node.lineno, (node.end_lineno or 0) + 1))
    return lines
