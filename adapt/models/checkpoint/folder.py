"""A model's folder before transformers reads it: which one it is, and its files as plain data.

Whatever is wrong is an `InputError` of one line that names the file. Nothing here is trusted: a
file may be a pointer to another storage, half of itself, a pipe, or no JSON.
"""

import json
import textwrap
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from adapt.params import InputError

LARGEST = 2**26  # bytes of a JSON file: the largest tokenizers have half of it
# How a file begins that git-lfs has left in place of the real one.
POINTER = b"version https://git-lfs.github.com/spec/"
# What is fetched of a hub id: never pickles, never code.
PATTERNS = ("*.json", "*.jinja", "*.model", "*.txt")
WEIGHTS = ("model*.safetensors", "adapter_model.safetensors")


def check_source(source: str | Path) -> None:
    """Raises InputError for what is neither a folder with a config nor looks like a hub id."""
    _check_name(source)
    folder = Path(source).expanduser()
    if folder.is_dir() and not is_adapter(folder) and not (folder / "config.json").exists():
        raise InputError(f"{source}: no model here (config.json is missing)")


def _check_name(source: str | Path) -> None:
    folder = Path(source).expanduser()
    looks_local = isinstance(source, Path) or str(source).startswith((".", "/", "~"))
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{source}: a file; name the folder that it lies in")
    if not folder.is_dir() and (looks_local or str(source).count("/") != 1):
        raise InputError(f"{source}: no such folder, and not a hub id (owner/name)")


def local_folder(source: str | Path, weights: bool) -> Path:
    """The folder of a model; what a hub id names is fetched first, with or without `weights`."""
    _check_name(source)
    folder = Path(source).expanduser()
    if folder.is_dir():
        return folder
    from huggingface_hub import snapshot_download

    patterns = [*PATTERNS, *(WEIGHTS if weights else ())]
    with foreign(f"{source}: no such folder, and it cannot be fetched from the hub"):
        return Path(snapshot_download(str(source), allow_patterns=patterns))


def is_adapter(folder: Path) -> bool:
    """Whether this is the folder of a PEFT adapter, which is nothing without its base."""
    return (folder / "adapter_config.json").exists()


@contextmanager
def foreign(where: str | Path) -> Iterator[None]:
    """One line for whatever a library makes of a file that it cannot use.

    Its errors have no common class: transformers lets through what its configuration classes
    happen to raise, and tokenizers raises `Exception` itself. So this is the one place that takes
    them all; only calls into these libraries stand inside the block.
    """
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        is_telling = isinstance(error, OSError | ValueError | ImportError) and bool(lines)
        kind = "" if is_telling else f"{type(error).__name__}: "
        reason = textwrap.shorten((lines or ["no reason given"])[0], 240, placeholder=" ...")
        raise InputError(f"{where}: {kind}{reason}") from None


# ---- files -------------------------------------------------------------------------------------


def check_file(path: Path) -> None:
    """Raises InputError unless this is a file with content, that can be read and is itself."""
    if not path.is_file():
        found = "not a file" if path.exists() else "missing"
        raise InputError(f"{path}: {found}")
    try:
        with path.open("rb") as file:
            start = file.read(len(POINTER))
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from None
    if not start:
        raise InputError(f"{path}: the file is empty")
    if start == POINTER:
        raise InputError(f"{path}: a git-lfs pointer, not the file itself; run `git lfs pull`")


def read_object(path: Path) -> dict[str, Any]:
    """The object in a JSON file."""
    check_file(path)
    if path.stat().st_size > LARGEST:
        raise InputError(f"{path}: larger than {LARGEST >> 20} MiB")
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from None
    except json.JSONDecodeError as error:
        raise InputError(f"{path}: not JSON (line {error.lineno}): {error.msg}") from None
    except (ValueError, RecursionError):  # no UTF-8, a number of a million digits; too deep
        raise InputError(f"{path}: not JSON that can be read") from None
    if not isinstance(values, dict):
        raise InputError(f"{path}: expected a JSON object")
    return values


def read_if_there(path: Path) -> Mapping[str, Any]:
    """As `read_object`; nothing where there is no file."""
    return read_object(path) if path.exists() or path.is_symlink() else {}
