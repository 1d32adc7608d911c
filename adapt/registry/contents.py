"""What a version of a registered model may hold: weights as safetensors, and what describes them.

Asked of a folder before it is uploaded, and of a list of names before a byte of them is fetched:
who downloads a version gets nothing that runs, no link, nothing hidden, and not more than a model
has. The few files by which MLflow knows a model have no suffix, or one that could be anything: they
are known by their whole names, at the root alone, and `mlmodel.py` looks into the one that says
what MLflow imports.
"""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path, PurePosixPath

from adapt.names import one_line
from adapt.params import InputError, require
from adapt.registry import mlmodel

# Loading one of these can run code.
UNSAFE = {".bin", ".ckpt", ".joblib", ".pickle", ".pkl", ".pt", ".pth"}
CODE = {".py", ".pyc", ".so", ".sh", ".ipynb"}
# What `save_pretrained` writes, and what people write about a model.
PARTS = {".safetensors", ".json", ".jinja", ".model", ".txt", ".md"}
# At the root, beside these: what MLflow writes about a model. The last says which version it is,
# and is put there by MLflow where it loads one.
ROOT = {mlmodel.NAME, "conda.yaml", "python_env.yaml", "registered_model_meta"}
# What answers beside the weights: detector, steering, debias masks, words, reference profile.
SERVING, SERVED = "serving", {".json", ".safetensors"}
MOST_FILES = 4096  # and folders; the largest models have some hundred shards
DEEPEST = 8  # folders in folders
_NAMED = 3  # names in a message

# What is said of a name, and whether a relative name is such a one.
FOREIGN: dict[str, Callable[[PurePosixPath], bool]] = {
    "may hold pickled code; keep weights as safetensors only": (
        lambda name: name.suffix.lower() in UNSAFE
    ),
    "is code; a version holds none": lambda name: name.suffix.lower() in CODE,
    "is hidden; a version holds nothing that is": (
        lambda name: any(part.startswith(".") for part in name.parts)
    ),
    "is no part of a model; a version holds nothing else": (lambda name: not _is_part(name)),
}


def _is_part(name: PurePosixPath) -> bool:
    """Whether a relative name is one of a model's files."""
    if str(name) in ROOT:
        return True
    return name.suffix.lower() in (SERVED if name.parts[:1] == (SERVING,) else PARTS)


def check_weights(folder: Path) -> None:
    """`InputError` unless `folder` holds safetensors, and nothing but what a model consists of."""
    files: list[str] = []
    where = one_line(str(folder))
    for path in _walk(folder):
        name = path.relative_to(folder).as_posix()
        if path.is_symlink():
            problem = "is a link out of the folder; put the file itself there"
            require(_stays(path, folder), where, f"{one_line(name)} {problem}")
        problem = "is no part of a model; a version holds nothing else"
        require(path.is_file(), where, f"{one_line(name)} {problem}")
        files.append(name)
    check_names(where, files)
    if mlmodel.NAME in files:
        mlmodel.check(folder / mlmodel.NAME)


def _stays(link: Path, folder: Path) -> bool:
    """Whether a link leads to a file of the folder."""
    try:
        return link.resolve().is_relative_to(folder.resolve()) and link.is_file()
    except (OSError, RuntimeError):  # a circle of links
        return False


def check_names(where: str, names: Iterable[str]) -> None:
    """`InputError` unless these are the relative names of a model's files."""
    known = [PurePosixPath(name) for name in names]
    for problem, is_one in FOREIGN.items():
        found = [one_line(str(name), 100) for name in known if is_one(name)]
        more = f" and {len(found) - _NAMED} more" if len(found) > _NAMED else ""
        require(not found, where, f"{', '.join(found[:_NAMED])}{more} {problem}")
    weights = (name for name in known if name.suffix == ".safetensors")
    has_weights = any(name.parts[0] != SERVING for name in weights)
    require(has_weights, where, "no weights (*.safetensors) in it")


def check_bounds(where: str, count: int, depth: int) -> None:
    """`InputError` for more files, or deeper folders, than a model has."""
    require(count <= MOST_FILES, where, f"more than {MOST_FILES} files, which is no model")
    require(depth <= DEEPEST, where, f"folders more than {DEEPEST} deep, which is no model")


def _walk(folder: Path) -> Iterator[Path]:
    """Everything below a folder that is no folder itself, in order; links are not followed."""
    waiting: list[tuple[Path, int]] = [(folder, 0)] if folder.is_dir() else []
    count, where = 0, one_line(str(folder))
    while waiting:
        above, depth = waiting.pop()
        check_bounds(where, count, depth)
        for entry in _entries(above, where):
            count += 1
            if entry.is_dir(follow_symlinks=False):
                waiting.append((Path(entry.path), depth + 1))
            else:
                yield Path(entry.path)


def _entries(folder: Path, where: str) -> list["os.DirEntry[str]"]:
    found = []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                found.append(entry)
                check_bounds(where, len(found), 0)
    except OSError as error:
        raise InputError(f"{where}: {one_line(str(folder))}: {error.strerror}") from None
    return sorted(found, key=lambda entry: entry.name)


def total(sizes: Mapping[str, int]) -> str:
    """The size of files in words.

    >>> total({"a": 1_200_000_000, "b": 34_000_000})
    '1.23 GB'
    """
    return f"{sum(sizes.values()) / 1e9:.3g} GB"
