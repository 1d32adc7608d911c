"""Folders between machines over shared storage: content-addressed inputs, and results that are
complete or absent.

Storage is whatever fsspec opens: a path that every node mounts, `s3://bucket/prefix`, `gs://...`.
Layout below it:

    inputs/<digest>/<files>      what a stage reads; <digest> is the sha256 of its names and contents
    inputs/<digest>.json         written last: the names and sizes; without it the folder counts as absent
    jobs/<job>/...               one submission: its description, its result (see `adapt.cluster`)

An input that is there is never uploaded again, and a node downloads it once. Everything below
`inputs/` may be deleted while no job runs.
"""

import fcntl
import hashlib
import json
import os
import shutil
import sys
import tempfile
import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from adapt.params import InputError

COMPLETE = "result.json"
ADVICE = "set ADAPT_RAY_STORAGE to storage that both this machine and the cluster reach, such as s3://bucket/prefix"


def files_of(path: Path) -> dict[str, Path]:
    """Relative name of each file below a folder, in order; a single file is a folder that holds
    only that file.
    """
    if path.is_file():
        return {path.name: path}
    return {p.relative_to(path).as_posix(): p for p in sorted(path.rglob("*")) if p.is_file()}


def digest(files: Mapping[str, Path]) -> str:
    """sha256 over names and contents."""
    total = hashlib.sha256()
    for name, path in sorted(files.items()):
        with path.open("rb") as file:
            total.update(f"{name}\0{hashlib.file_digest(file, 'sha256').hexdigest()}\n".encode())
    return total.hexdigest()


def share(path: Path, storage: str) -> str:
    """Make a file or folder readable by every node: the URI for `fetch`. Uploads only what is not
    there yet.
    """
    files = files_of(path)
    if not files:
        raise InputError(f"{path}: not found, or an empty folder")
    key = digest(files)
    fs, root = _open(storage)
    folder = f"{root}/inputs/{key}"
    size = sum(p.stat().st_size for p in files.values())
    what = f"{path.name}: {len(files)} file{'s' if len(files) > 1 else ''}, {size / 1e6:.1f} MB"
    if fs.exists(f"{folder}.json"):
        print(f"{what}: already on the storage", flush=True)
    else:
        print(f"{what}: uploading to {storage}", flush=True)
        _upload(fs, files, folder)
        _write(
            fs, f"{folder}.json", _as_json({name: p.stat().st_size for name, p in files.items()})
        )
    uri = f"{storage.rstrip('/')}/inputs/{key}"
    return f"{uri}/{path.name}" if path.is_file() else uri


def fetch(uri: str) -> Path:
    """A local copy of what `share` returned: downloaded once per node, checked against its digest.

    On storage that this node mounts, and for any other existing path, that is the path itself.
    """
    fs, path = _open(uri)
    if _is_local(fs):
        if not Path(path).exists():
            raise InputError(f"{path}: not visible on this node; {ADVICE}")
        return Path(path)
    parent, _, rest = path.rpartition("/inputs/")
    key, _, name = rest.partition("/")
    target = _cache() / key
    with _locked(target.with_name(f"{key}.lock")):
        if not target.exists():
            _fetch_folder(fs, f"{parent}/inputs/{key}", target)
    return target / name if name else target


def _fetch_folder(fs: Any, folder: str, target: Path) -> None:
    """Download into a folder beside `target`, and rename it once its digest, the name of `target`,
    is right.
    """
    partial = target.with_name(f"{target.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    _download(fs, folder, json.loads(fs.cat_file(f"{folder}.json")), partial)
    if digest(files_of(partial)) != target.name:
        raise RuntimeError(
            f"{folder}: damaged on the storage; delete it and its .json, and run again"
        )
    partial.rename(target)


def publish(folder: Path, uri: str, content: Mapping[str, Any]) -> None:
    """Upload `folder` below `uri`, then mark it complete with `content`, both or nothing as far as
    `collect` sees.
    """
    files = files_of(folder)
    fs, root = _open(uri)
    _upload(fs, files, f"{root}/out")
    sizes = {name: p.stat().st_size for name, p in files.items()}
    _write(fs, f"{root}/{COMPLETE}", _as_json({**content, "files": sizes, "digest": digest(files)}))


def collect(uri: str, folder: Path) -> dict[str, Any]:
    """Download what `publish` left at `uri` into `folder`; returns its content."""
    content = read_json(f"{uri}/{COMPLETE}")
    fs, root = _open(uri)
    _download(fs, f"{root}/out", content["files"], folder)
    if digest({name: folder / name for name in content["files"]}) != content["digest"]:
        raise RuntimeError(f"{uri}: the result was damaged on its way back")
    return content


def as_arrow(uri: str) -> dict[str, Any]:
    """`uri` as Ray Train takes it, opened by the same driver with the same credentials as
    everything else here.
    """
    from pyarrow.fs import FSSpecHandler, PyFileSystem

    fs, path = _open(uri)
    return {"storage_path": path} | (
        {} if _is_local(fs) else {"storage_filesystem": PyFileSystem(FSSpecHandler(fs))}
    )


def write_json(uri: str, content: Mapping[str, Any]) -> None:
    """Write one JSON object, as a whole or not at all."""
    fs, path = _open(uri)
    _write(fs, path, _as_json(content))


def read_json(uri: str) -> dict[str, Any]:
    """Read one JSON object; `FileNotFoundError` when it is not there."""
    fs, path = _open(uri)
    return json.loads(fs.cat_file(path))


def remove(uri: str) -> None:
    """Delete everything below `uri`, if there is anything."""
    fs, path = _open(uri)
    if fs.exists(path):
        fs.rm(path, recursive=True)


@contextmanager
def named(storage: str) -> Iterator[None]:
    """Turn what goes wrong with the storage itself into one line that names the variable it was
    given in.
    """
    try:
        yield
    except InputError:
        raise
    except _storage_errors() as error:
        raise InputError(
            f"ADAPT_RAY_STORAGE: {storage}: {str(error).strip() or type(error).__name__}"
        ) from error


def _storage_errors() -> tuple[type[Exception], ...]:
    """Unknown protocol, missing driver, no access; botocore's own errors (no credentials) are no
    OSErrors.
    """
    kinds: list[type[Exception]] = [OSError, ImportError, ValueError]
    if "botocore" in sys.modules:
        from botocore.exceptions import BotoCoreError

        kinds.append(BotoCoreError)
    return tuple(kinds)


def _open(uri: str) -> tuple[Any, str]:
    from fsspec.core import url_to_fs

    fs, path = url_to_fs(uri.rstrip("/"))
    return fs, path


def _is_local(fs: Any) -> bool:
    from fsspec.implementations.local import LocalFileSystem

    return isinstance(fs, LocalFileSystem)


def _as_json(content: Mapping[str, Any]) -> bytes:
    return json.dumps(content, indent=2, sort_keys=True).encode()


def _upload(fs: Any, files: Mapping[str, Path], folder: str) -> None:
    """Put each file as a whole: object stores do; on a mounted file system a rename does."""
    if not _is_local(fs):
        fs.put(
            [str(p) for p in files.values()],
            [f"{folder}/{name}" for name in files],
            callback=_progress("upload"),
        )
        return
    for name, path in files.items():
        with _renamed_to(Path(folder, name)) as partial:
            shutil.copyfile(path, partial)


def _download(fs: Any, folder: str, names: Iterable[str], into: Path) -> None:
    targets = [into / name for name in names]
    for parent in {target.parent for target in targets}:
        parent.mkdir(parents=True, exist_ok=True)
    fs.get(
        [f"{folder}/{name}" for name in names],
        [str(t) for t in targets],
        callback=_progress("download"),
    )


def _write(fs: Any, path: str, data: bytes) -> None:
    if not _is_local(fs):
        fs.pipe_file(path, data)
        return
    with _renamed_to(Path(path)) as partial:
        partial.write_bytes(data)


@contextmanager
def _renamed_to(target: Path) -> Iterator[Path]:
    """A path beside `target` that becomes `target` when the block ends well."""
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f"{target.name}.{uuid.uuid4().hex}")
    try:
        yield partial
        partial.rename(target)
    finally:
        partial.unlink(missing_ok=True)


def _progress(what: str) -> Any:
    """A bar on a terminal, nothing in a log."""
    from fsspec.callbacks import TqdmCallback

    return TqdmCallback(tqdm_kwargs={"desc": what, "unit": "file", "disable": None, "leave": False})


def _cache() -> Path:
    """This user's folder for inputs on this node; on the node's own disk even where homes are
    shared.
    """
    folder = Path(tempfile.gettempdir()) / f"adapt-inputs-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.stat().st_uid != os.getuid():
        raise RuntimeError(f"{folder}: belongs to another user")
    return folder


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold `path` as a lock between the processes of this node; the kernel drops it with its
    holder.
    """
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
