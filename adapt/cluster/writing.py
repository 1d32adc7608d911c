"""Writing to a storage: each file as a whole, and none that is there already."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from adapt.cluster.reading import is_local, progress
from adapt.files import whole_file


def sizes_of(files: Mapping[str, Path]) -> dict[str, int]:
    """Bytes by name."""
    return {name: path.stat().st_size for name, path in files.items()}


def missing(fs: Any, files: Mapping[str, Path], folder: str) -> dict[str, Path]:
    """Those that an upload into this folder, which is named by their content, still has to bring.

    What is there with its size is whole: `upload` makes no half ones. Who reads checks contents.
    """
    fs.invalidate_cache()
    found = fs.find(folder, detail=True) if fs.exists(folder) else {}
    there = {
        name.removeprefix(folder).lstrip("/"): one.get("size")
        for name, one in found.items()
        if one.get("type") == "file"
    }
    sizes = sizes_of(files)
    return {name: path for name, path in files.items() if there.get(name) != sizes[name]}


def upload(fs: Any, files: Mapping[str, Path], folder: str) -> None:
    """Put each file as a whole: object stores do; on a mounted file system a rename does."""
    if not is_local(fs):
        sources, targets = [str(p) for p in files.values()], [f"{folder}/{name}" for name in files]
        fs.put(sources, targets, callback=progress("upload"))
        return
    for name, path in files.items():
        with whole_file(Path(folder, name)) as partial:
            shutil.copyfile(path, partial)


def write(fs: Any, path: str, content: Mapping[str, Any]) -> None:
    """One JSON object, as a whole."""
    data = json.dumps(content, indent=2, sort_keys=True).encode()
    if not is_local(fs):
        fs.pipe_file(path, data)
        return
    with whole_file(Path(path)) as partial:
        partial.write_bytes(data)
