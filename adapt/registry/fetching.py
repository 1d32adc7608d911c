"""The files of a registered model, fetched so that whoever wrote them decides nothing here.

MLflow's own download copies links and pipes of a folder, believes a server's sizes, and waits as
long as bytes come. Here the files are listed first and refused by name, number and size; each is
written below the target by its own checked name, no longer than was said, and a server that stops
sending is given up.
"""

import os
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from adapt import addresses
from adapt.names import below, one_line
from adapt.params import InputError, require
from adapt.registry import contents

STALL_S = 20.0  # without a byte, or at less than `SLOWEST`, a server has stopped
SLOWEST = 10_000  # bytes a second
BLOCK = 1 << 18
SERVED = ("http", "https", "mlflow-artifacts")  # by a tracking server
STORED = ("", "file", "s3", "gs", "wasbs", "abfss", "hdfs", "r2", "b2")


def fetch(origin: str, address: str, to: Path) -> None:
    """Fill the empty folder `to` with the model at `origin`, an address of MLflow's artifacts.

    `address`: the tracking server's. `InputError` in one line for whatever is no model there.
    """
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    _check_origin(origin, address)
    repository = get_artifact_repository(origin, tracking_uri=address)
    if folder := getattr(repository, "artifact_dir", None):
        _copy(Path(folder), to)
        return
    sizes = dict(_listed(repository, to))
    contents.check_names("the registered model", sizes)
    _require_room(sizes, to)
    for name, size in sizes.items():
        path = below(to, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        _write(repository, name, size, path)


def fetch_one(origin: str, address: str, name: str, limit: int) -> bytes | None:
    """The file `name`, of at most `limit` bytes, of the model at `origin`; None where it has none.

    `name` is one of ours. As careful as `fetch`; `InputError` for a file that is larger, or none.
    """
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    _check_origin(origin, address)
    repository = get_artifact_repository(origin, tracking_uri=address)
    with tempfile.TemporaryDirectory() as scratch:
        path = below(Path(scratch), name)
        path.parent.mkdir(parents=True, exist_ok=True)
        if folder := getattr(repository, "artifact_dir", None):
            if not _copy_one(below(Path(folder), name), path, limit):
                return None
        else:
            sizes = dict(_siblings(repository, name))
            if name not in sizes:
                return None
            _require_small(name, sizes[name], limit)
            _write(repository, name, sizes[name], path)
        return path.read_bytes()


def _copy_one(source: Path, path: Path, limit: int) -> bool:
    """Copy a file of this machine, unless there is none; a link or a pipe is none of a model."""
    try:
        opened = os.open(source, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW)
    except FileNotFoundError:
        return False
    with open(opened, "rb") as file:
        info = os.fstat(opened)
        problem = f"{one_line(source.name)} is no file"
        require(stat.S_ISREG(info.st_mode), "the registered model", problem)
        _require_small(source.name, info.st_size, limit)
        path.write_bytes(file.read(limit))
    return True


def _siblings(repository: Any, name: str) -> Iterator[tuple[str, int]]:
    """Name and size, as the server says, of the files of the folder that `name` is in."""
    for count, one in enumerate(repository.list_artifacts(name.rpartition("/")[0] or None)):
        contents.check_bounds("the registered model", count, 0)
        if not one.is_dir and one.path == name:
            has_size = isinstance(one.file_size, int) and one.file_size >= 0
            problem = f"the server does not say how large {one_line(name)} is"
            require(has_size, "the registered model", problem)
            yield one.path, one.file_size


def _require_small(name: str, size: int, limit: int) -> None:
    problem = f"{one_line(name)} has {size:,} bytes, more than {limit:,}"
    require(size <= limit, "the registered model", problem)


def _check_origin(origin: str, address: str) -> None:
    """Credentials are sent to the server that was configured, and to no other that it names."""
    scheme, there = origin.partition(":")[0] if ":" in origin else "", addresses.host(origin)
    is_elsewhere = scheme in SERVED and there not in ("", addresses.host(address))
    shown = one_line(addresses.shown(origin), 100)
    problem = f"its files are said to lie at {shown}, on another server"
    require(not is_elsewhere, "the registered model", problem)
    problem = f"its files are said to lie at {shown}, where no model is fetched from"
    require(scheme in SERVED + STORED, "the registered model", problem)


def _copy(folder: Path, to: Path) -> None:
    """From a folder of this machine: checked first, links inside it copied as files."""
    contents.check_weights(folder)
    files = [path for path in folder.rglob("*") if path.is_file()]
    _require_room({str(path): path.stat().st_size for path in files}, to)
    for path in files:
        target = below(to, path.relative_to(folder).as_posix())
        target.parent.mkdir(parents=True, exist_ok=True)
        # Not a pipe that has taken a file's place since it was looked at.
        opened = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        with open(opened, "rb") as file, target.open("xb") as copy:
            shutil.copyfileobj(file, copy, BLOCK)


def _listed(repository: Any, to: Path) -> Iterator[tuple[str, int]]:
    """Name and size of every file, as the server says; each name lies below the one before."""
    where, count = "the registered model", 0
    waiting: list[tuple[str | None, int]] = [(None, 0)]
    while waiting:
        above, depth = waiting.pop()
        contents.check_bounds(where, count, depth)
        for one in repository.list_artifacts(above):
            count += 1
            contents.check_bounds(where, count, depth)
            below(to, one.path)
            shown = one_line(str(one.path), 100)
            is_child = one.path.rpartition("/")[0] == (above or "")
            require(is_child, where, f"{shown} is listed in another folder than its own")
            if one.is_dir:
                waiting.append((one.path, depth + 1))
                continue
            has_size = isinstance(one.file_size, int) and one.file_size >= 0
            require(has_size, where, f"the server does not say how large {shown} is")
            yield one.path, one.file_size


def _require_room(sizes: Mapping[str, int], to: Path) -> None:
    free = shutil.disk_usage(to).free
    problem = f"needs {contents.total(sizes)}, and the disk of {to} has {free / 1e9:.3g} GB free"
    require(sum(sizes.values()) <= free, "the registered model", f"{problem}; make room")


def _write(repository: Any, name: str, size: int, path: Path) -> None:
    """One file. Object stores say themselves how large theirs are; a server is not believed."""
    from mlflow.store.artifact.http_artifact_repo import HttpArtifactRepository

    if isinstance(repository, HttpArtifactRepository):
        written = _stream(repository, name, size, path)
    else:
        repository._download_file(name, str(path))
        written = path.stat().st_size
    problem = f"{one_line(name)} has {written:,} bytes where the server said {size:,}"
    require(written == size, "the registered model", problem)


def _stream(repository: Any, name: str, size: int, path: Path) -> int:
    """Write what a server sends, at most a byte more than `size`; returns how much it was."""
    from mlflow.utils.rest_utils import augmented_raise_for_status, http_request

    written, started = 0, time.monotonic()
    options = {"stream": True, "timeout": STALL_S}
    with http_request(repository._host_creds, f"/{name}", "GET", **options) as response:
        augmented_raise_for_status(response)
        with path.open("xb") as file:
            while written <= size:
                block = response.raw.read1(min(BLOCK, size + 1 - written), decode_content=True)
                if not block:
                    break
                written += file.write(block)
                seconds = time.monotonic() - started
                if seconds > STALL_S and written < SLOWEST * seconds:
                    rate = f"{written:,} bytes in {seconds:.0f} s"
                    raise InputError(f"the registered model: {one_line(name)}: only {rate} came")
    return written
