"""Write a recipe, the settings for a published checkpoint, into `params.yaml`.

    python -m adapt.recipe                          # which recipes there are
    python -m adapt.recipe llava-1.5-7b --dry-run   # what one would change
    python -m adapt.recipe llava-1.5-7b

A recipe is a file `recipes/NAME.yaml` with those keys of params.yaml that differ for its model. Its
first line, a comment, says what it is for; every value has its source behind it. Only the
characters of values change in params.yaml: comments, order and all else stay. The result is checked
as every stage checks it before the file is replaced, and what a recipe does not name, `data.source`
above all, stays as it is.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import reduce
from operator import getitem
from pathlib import Path
from typing import Any

import yaml

from adapt import command, environment, launch, params
from adapt.files import whole_file
from adapt.params import InputError, require

FOLDER = "recipes"


@dataclass(frozen=True)
class Change:
    """A value of params.yaml to replace: characters [start, end) of its text become `new`."""

    key: str
    start: int
    end: int
    old: str
    new: str


def main() -> None:
    """The command line; a mistake is one line on stderr and exit code 2."""
    root = Path.cwd()
    parser = environment.parser("adapt.recipe", __doc__)
    parser.add_argument("name", nargs="?", help="which recipe; without one they are listed")
    parser.add_argument("--dry-run", action="store_true", help="print the changes, write nothing")
    options = parser.parse_args()

    def work() -> None:
        if options.name is None:
            lines = [f"{name:16} {about}" for name, about in recipes(root).items()]
        else:
            lines = apply(root, options.name, options.dry_run)
        print("\n".join(lines))

    if code := command.ended("adapt recipe", work):
        raise SystemExit(code)


def recipes(root: Path) -> dict[str, str]:
    """The recipes of a workspace, and what each is for, from its first comment."""
    files = sorted((root / FOLDER).glob("*.yaml"))
    require(bool(files), str(root / FOLDER), "no recipes here; run from the project's root")
    return {file.stem: _text(file).partition("\n")[0].lstrip("\ufeff# ") for file in files}


def apply(root: Path, name: str, dry_run: bool) -> list[str]:
    """Write the recipe `name` into params.yaml; returns what to tell, a line for each change."""
    known = recipes(root)
    require(name in known, FOLDER, f"no recipe {name}; {params.hint(name, known)}")
    recipe, file = root / FOLDER / f"{name}.yaml", root / "params.yaml"
    # 1. What the file is to say, checked as the stages check it.
    wanted = merged(params.read(file), params.read(recipe), recipe)
    launch.configs(wanted)
    # 2. How its text gets there.
    changes = planned(_text(file), _text(recipe), params.read(file), wanted)
    if not changes:
        return [f"params.yaml has every value of {FOLDER}/{name}.yaml: nothing to do"]
    width = max(len(change.key) for change in changes)
    lines = [f"  {one.key:{width}}  {one.old} -> {one.new}" for one in changes]
    # 3. All of it or nothing; and a text that does not say what was checked is not written.
    if not dry_run:
        _write(file, edited(_text(file), changes), wanted)
    done = "would change" if dry_run else "changed"
    return [f"params.yaml: {len(changes)} values {done} by {FOLDER}/{name}.yaml", *lines]


def merged(
    content: params.Content, overlay: params.Content, recipe: Path, above: tuple[str, ...] = ()
) -> dict[str, Any]:
    """`content`, found under `above`, with the values of `overlay`, whose keys it must have."""
    result = dict(content)
    for name, value in overlay.items():
        key = ".".join(map(str, [*above, name]))
        problem = f"unknown key {key}; {params.hint(str(name), result, '.'.join(above))}"
        require(name in result, str(recipe), problem)
        is_section, known = isinstance(value, Mapping), result[name]
        if isinstance(known, Mapping):
            require(is_section, str(recipe), f"{key}: expected a section with keys")
            result[name] = merged(known, value, recipe, (*above, name))
        else:
            require(not is_section, str(recipe), f"{key}: expected a value, not a section")
            result[name] = value
    return result


def planned(text: str, recipe: str, content: Any, wanted: Any) -> list[Change]:
    """The replacements in `text` that make `content` into `wanted`, as `recipe` writes the values.

    >>> text, recipe = "train: {steps: 9, beta: 0.5}  # why", "train:\\n  beta: 0.1  # [release]"
    >>> planned(text, recipe, yaml.safe_load(text), {"train": {"steps": 9, "beta": 0.1}})
    [Change(key='train.beta', start=24, end=27, old='0.5', new='0.1')]
    """
    places, changes = dict(_leaves(yaml.compose(text))), []
    for path, node in _leaves(yaml.compose(recipe)):
        if reduce(getitem, path, content) != reduce(getitem, path, wanted):
            (start, end), (first, last) = _span(places[path]), _span(node)
            change = Change(".".join(path), start, end, text[start:end], recipe[first:last])
            changes.append(change)
    return sorted(changes, key=lambda change: change.start)


def edited(text: str, changes: list[Change]) -> str:
    """The text with all changes; a comment behind a value keeps its column where there is room.

    >>> edited("a: 1    # one\\nb: 2\\n", [Change("a", 3, 4, "1", "1000")])
    'a: 1000 # one\\nb: 2\\n'
    """
    for change in reversed(changes):
        before, after = text[: change.start], text[change.end :]
        if gap := re.match(r" +(?=#)", after):
            room = len(gap[0]) - len(change.new) + change.end - change.start
            after = " " * max(room, 1) + after[gap.end() :]
        text = before + change.new + after
    return text


def _leaves(
    node: yaml.Node | None, above: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], yaml.Node]]:
    """Every value that is no section, with the path to it."""
    assert node is not None, "`params.read` refuses an empty file"
    if not isinstance(node, yaml.MappingNode):
        yield above, node
        return
    for name, value in node.value:
        yield from _leaves(value, (*above, name.value))


def _span(node: yaml.Node) -> tuple[int, int]:
    """Where a value stands; a list in lines ends with its last value, not before the next key."""
    is_block = isinstance(node, yaml.SequenceNode) and not node.flow_style
    end = _span(node.value[-1])[1] if is_block else node.end_mark.index
    return node.start_mark.index, end


def _text(file: Path) -> str:
    try:
        return file.read_bytes().decode()  # line ends as they are
    except UnicodeDecodeError:
        raise InputError(f"{file}: not UTF-8; save the file as UTF-8") from None
    except OSError as error:
        raise InputError(f"{file}: {error.strerror}") from None


def _write(file: Path, text: str, wanted: Mapping[str, Any]) -> None:
    try:
        with whole_file(file.resolve()) as partial:
            partial.write_bytes(text.encode())
            problem = "a value is written in a way that cannot be replaced in place; edit it there"
            require(_read(partial) == wanted, str(file), problem)
            partial.chmod(file.stat().st_mode)
    except OSError as error:
        raise InputError(f"{file}: {command.advice(error)}") from None


def _read(file: Path) -> dict[str, Any] | None:
    """The content, or None where replacing has left no valid file."""
    try:
        return params.read(file)
    except InputError:
        return None


if __name__ == "__main__":
    main()
