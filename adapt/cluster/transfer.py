"""Files from and to a storage that others can write to: nothing that lies there is believed.

Lists are bounded, names stay below their folder, files are what was announced and no links, and
whatever is wrong is one line. What is written there is whole.
"""

import json
import shutil
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from adapt import names
from adapt.files import whole_file
from adapt.params import InputError

LARGEST = 2**24  # bytes of a list or a description
MOST = 100_000  # files of a folder, metrics of a result


def download(fs: Any, folder: str, sizes: Any, into: Path) -> None:
    """Get the files that a list announces, by name and size, from `folder`."""
    # 1. Names that stay below `into`, sizes that are there and that the disk has room for.
    if not isinstance(sizes, dict) or not 0 < len(sizes) <= MOST:
        raise InputError(f"{folder}: no list of at most {MOST} files")
    targets = [names.below(into, name) for name in sizes]
    for name, size in sizes.items():
        _require_file(fs, folder, name, size)
    into.mkdir(parents=True, exist_ok=True)
    total, free = sum(sizes.values()), shutil.disk_usage(into).free
    if total > free:
        problem = f"{total / 1e9:.1f} GB, and {into} has {free / 1e9:.1f} GB left"
        raise InputError(f"{folder}: is {problem}; free some space")
    # 2. Then their contents.
    for parent in {target.parent for target in targets}:
        parent.mkdir(parents=True, exist_ok=True)
    sources = [f"{folder}/{name}" for name in sizes]
    fs.get(sources, [str(target) for target in targets], callback=progress("download"))


def _require_file(fs: Any, folder: str, name: str, size: object) -> None:
    """A plain file of the announced size; on a mounted storage reached without a link."""
    shown = names.one_line(f"{folder}/{name}")
    if type(size) is not int or size < 0:
        raise InputError(f"{shown}: is announced with a size that is none")
    if is_local(fs):
        path = names.below(Path(folder), name)
        found = path.lstat()
        is_file, has = stat.S_ISREG(found.st_mode), found.st_size
    else:
        info = fs.info(f"{folder}/{name}")
        is_file, has = info.get("type") == "file", info.get("size")
    if not is_file or has != size:
        raise InputError(f"{shown}: is not the file of {size} bytes that was announced")


def read(fs: Any, path: str, limit: int = LARGEST) -> dict[str, Any]:
    """A JSON object of at most `limit` bytes; FileNotFoundError when it is not there."""
    shown = names.one_line(path)
    if is_local(fs) and not stat.S_ISREG(Path(path).lstat().st_mode):
        raise InputError(f"{shown}: is no file")
    with fs.open(path, "rb") as file:
        data = file.read(limit + 1)
    if len(data) > limit:
        raise InputError(f"{shown}: is larger than {limit >> 20} MiB, too large for what it is")
    try:
        content = json.loads(data)
    except (ValueError, RecursionError):
        raise InputError(f"{shown}: is no JSON") from None
    if not isinstance(content, dict):
        raise InputError(f"{shown}: is no JSON object")
    return content


def is_local(fs: Any) -> bool:
    """Whether a storage is a file system that is mounted here."""
    from fsspec.implementations.local import LocalFileSystem

    return isinstance(fs, LocalFileSystem)


def progress(label: str) -> Any:
    """A bar on a terminal, nothing in a log."""
    from fsspec.callbacks import TqdmCallback

    bar = {"desc": label, "unit": "file", "disable": None, "leave": False}
    return TqdmCallback(tqdm_kwargs=bar)


# ---- writing ----------------------------------------------------------------------------------


def sizes_of(files: Mapping[str, Path]) -> dict[str, int]:
    """Bytes by name."""
    return {name: path.stat().st_size for name, path in files.items()}


def missing(fs: Any, files: Mapping[str, Path], folder: str) -> dict[str, Path]:
    """Those that an upload into this folder, which is named by their content, still has to bring.

    On an object store what is there with its size is whole, and who reads it checks its content; a
    mounted file system gets all files again.
    """
    if is_local(fs):
        return dict(files)
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
