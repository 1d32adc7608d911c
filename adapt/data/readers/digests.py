"""Digests of files by content, cheap to ask for again.

A file is read once; as long as its path, size, time of change and inode stay what they were, its
digest comes from a small file in the state folder.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

from adapt.files import whole_file

Known = dict[str, tuple[str, str]]  # path: (what was seen of the file, its sha256)


def of_files(files: Mapping[str, Path], kept: Path) -> str:
    """sha256 over names, sizes and contents; `kept` is the file that remembers them."""
    known, seen = _read(kept), Known()
    total = hashlib.sha256()
    for name, path in sorted(files.items()):
        info = path.stat()
        mark = f"{info.st_size}-{info.st_mtime_ns}-{info.st_ino}"
        before = known.get(str(path))
        digest = before[1] if before and before[0] == mark else _digest(path)
        seen[str(path)] = (mark, digest)
        total.update(f"{name}\0{info.st_size}\0{digest}\n".encode("utf-8", "surrogateescape"))
    if any(known.get(path) != entry for path, entry in seen.items()):
        with whole_file(kept) as partial:
            partial.write_text(json.dumps(known | seen), encoding="utf-8")
    return total.hexdigest()


def of_folder(folder: Path, kept: Path) -> str:
    """sha256 over all files of a folder, such as a model's."""
    files = {str(path.relative_to(folder)): path for path in folder.rglob("*") if path.is_file()}
    return of_files(files, kept)


def of_marks(marks: Mapping[str, str]) -> str:
    """sha256 over names and what a storage says of their contents."""
    total = hashlib.sha256()
    for name, mark in sorted(marks.items()):
        total.update(f"{name}\0{mark}\n".encode())
    return total.hexdigest()


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _read(kept: Path) -> Known:
    """What is remembered; nothing where the file is missing or damaged."""
    try:
        content = json.loads(kept.read_text(encoding="utf-8"))
        return {path: (mark, digest) for path, (mark, digest) in content.items()}
    except (OSError, ValueError, AttributeError, TypeError):
        return {}
