"""Folders between machines over shared storage: inputs by content, results complete or absent.

Written here although Ray moves files, too: its `working_dir` is limited to some hundred MB and
leaves out what .gitignore names, as results are, and Ray Train's storage does not mark a folder as
complete, so that one whose upload broke off looks like any other.

Storage is whatever fsspec opens: a path that every node mounts, `s3://bucket/prefix`, `gs://...`.
Layout below it:

    inputs/<digest>/<files>   what a stage reads; <digest> is the sha256 of its names and contents
    inputs/<digest>.json      written last: names and sizes; without it the folder counts as absent
    jobs/<job>/...            one piece of work: its description, its result (see `submit`)

An input that is there is never uploaded again, and a node downloads it once. Everything below
`inputs/` may be deleted while no job runs.

Others may be able to write there: nothing that is read from it is believed (`transfer`).
"""

import hashlib
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from adapt import names
from adapt.cluster.transfer import (
    LARGEST,
    MOST,
    download,
    is_local,
    missing,
    read,
    sizes_of,
    upload,
    write,
)
from adapt.files import locked, storage_errors
from adapt.names import one_line
from adapt.params import InputError

COMPLETE = "result.json"
KEY = re.compile(r"[0-9a-f]{64}")
_BOTH = "both this machine and the cluster"
ADVICE = f"set ADAPT_RAY_STORAGE to storage that {_BOTH} reach, such as s3://bucket/prefix"


class Damaged(InputError):
    """What is complete on the storage, but not what was put there."""


def files_of(path: Path) -> dict[str, Path]:
    """Relative name of each file below a folder, in order; of a single file, its own."""
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
    """The URI of a file or folder for `fetch` on every node; uploads what is not there."""
    files = files_of(path)
    if not files:
        raise InputError(f"{path}: not found, or an empty folder")
    uri = put(files, path.name, storage)
    return f"{uri}/{path.name}" if path.is_file() else uri


def put(files: Mapping[str, Path], label: str, storage: str) -> str:
    """The URI of a folder with these files, by the names that they have there; `label` is said.

    An upload to an object store that broke off is gone on with.
    """
    if len(files) > MOST:
        raise InputError(f"{label}: has {len(files)} files, more than the {MOST} that are taken")
    key = digest(files)
    fs, root = _open(storage)
    folder = f"{root}/inputs/{key}"
    sizes = sizes_of(files)
    plural = "s" if len(files) > 1 else ""
    said = f"{label}: {len(files)} file{plural}, {sum(sizes.values()) / 1e6:.1f} MB"
    if fs.exists(f"{folder}.json"):
        print(one_line(f"{said}: already on the storage"), flush=True)
    else:
        lacking = missing(fs, files, folder)
        begun = f", {len(lacking)} of them missing" if len(lacking) < len(files) else ""
        print(one_line(f"{said}{begun}: uploading to {storage}"), flush=True)
        upload(fs, lacking, folder)
        # Last: what it names is there, whenever the upload broke off.
        write(fs, f"{folder}.json", sizes)
    return f"{storage.rstrip('/')}/inputs/{key}"


def fetch(uri: str) -> Path:
    """A local copy of what `share` returned: downloaded once per node, checked against its digest.

    On storage that this node mounts, and for any other existing path, that is the path itself.
    """
    fs, path = _open(uri)
    if is_local(fs):
        if not Path(path).exists():
            raise InputError(f"{path}: not visible on this node; {ADVICE}")
        return Path(path)
    parent, _, rest = path.rpartition("/inputs/")
    key, _, name = rest.partition("/")
    if not KEY.fullmatch(key):
        raise InputError(f"{names.one_line(uri)}: is no input on the storage")
    target = cache() / key
    with locked(target.with_name(f"{key}.lock")):
        if not target.exists():
            _fetch_folder(fs, f"{parent}/inputs/{key}", target)
    return names.below(target, name) if name else target


def _fetch_folder(fs: Any, folder: str, target: Path) -> None:
    """Download beside `target`, and rename once the digest is right, which is its name."""
    partial = target.with_name(f"{target.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    download(fs, folder, read(fs, f"{folder}.json"), partial)
    if digest(files_of(partial)) != target.name:
        advice = "delete it and its .json, and run again"
        raise Damaged(f"{folder}: damaged on the storage; {advice}")
    partial.rename(target)


def publish(folder: Path, uri: str, content: Mapping[str, Any]) -> None:
    """Upload `folder` below `uri`, then `content`, which marks it complete for `collect`."""
    files = files_of(folder)
    fs, root = _open(uri)
    upload(fs, files, f"{root}/out")
    result = {**content, "files": sizes_of(files), "digest": digest(files)}
    write(fs, f"{root}/{COMPLETE}", result)


def is_complete(uri: str) -> bool:
    """Whether `publish` has ended there."""
    fs, path = _open(f"{uri}/{COMPLETE}")
    return bool(fs.exists(path))


def collect(uri: str, folder: Path) -> dict[str, Any]:
    """Download what `publish` left at `uri` into `folder`; returns its content."""
    content = read_json(f"{uri}/{COMPLETE}")
    fs, root = _open(uri)
    files, metrics = content.get("files"), content.get("metrics", {})
    is_named = isinstance(metrics, dict) and len(metrics) <= MOST
    if not is_named or any(type(value) not in (int, float) for value in metrics.values()):
        raise InputError(f"{uri}/{COMPLETE}: its metrics are no numbers; delete {uri}")
    download(fs, f"{root}/out", files, folder)
    assert isinstance(files, dict)
    if digest({name: folder / name for name in files}) != content.get("digest"):
        raise Damaged(f"{uri}: the result was damaged on its way back; run the same again")
    return content


def as_arrow(uri: str) -> dict[str, Any]:
    """`uri` as Ray Train takes it, opened by the same driver as everything else here."""
    from pyarrow.fs import FSSpecHandler, PyFileSystem

    fs, path = _open(uri)
    driver = {} if is_local(fs) else {"storage_filesystem": PyFileSystem(FSSpecHandler(fs))}
    return {"storage_path": path, **driver}


def write_json(uri: str, content: Mapping[str, Any]) -> None:
    """Write one JSON object, as a whole or not at all."""
    write(*_open(uri), content)


def read_json(uri: str, limit: int = LARGEST) -> dict[str, Any]:
    """Read one JSON object; FileNotFoundError when it is not there, InputError when it is none."""
    return read(*_open(uri), limit)


def remove(uri: str) -> None:
    """Delete everything below `uri`, if there is anything."""
    fs, path = _open(uri)
    if fs.exists(path):
        fs.rm(path, recursive=True)


def modified(uri: str, most: int) -> dict[str, float]:
    """When the files right below `uri` were written, by name, by the storage's clock in seconds."""
    fs, path = _open(uri)
    fs.invalidate_cache()
    times = {}
    for one in fs.ls(path, detail=True)[:most]:
        name = one["name"].rpartition("/")[2]
        # What begins with a dot is half-written; what is gone by now was somebody's to take away.
        if one.get("type") == "file" and not name.startswith("."):
            with suppress(FileNotFoundError):
                times[name] = fs.modified(one["name"]).timestamp()
    return times


def folders(uri: str) -> list[str]:
    """Names of the folders right below `uri`; none where there is nothing."""
    fs, path = _open(uri)
    if not fs.exists(path):
        return []
    fs.invalidate_cache()
    found = fs.ls(path, detail=True)[:MOST]
    kept = [
        one["name"]
        for one in found
        if one.get("type") == "directory" and not one.get("islink", False)
    ]
    return [name.rstrip("/").rpartition("/")[2] for name in kept]


@contextmanager
def named(storage: str) -> Iterator[None]:
    """Turn trouble with the storage itself into one line that names its variable."""
    try:
        yield
    except InputError:
        raise
    except storage_errors() as error:
        problem = str(error).strip() or type(error).__name__
        raise InputError(f"ADAPT_RAY_STORAGE: {storage}: {problem}") from error


def _open(uri: str) -> tuple[Any, str]:
    from fsspec.core import url_to_fs

    return url_to_fs(uri.rstrip("/"))


def cache() -> Path:
    """This user's folder for inputs, on the node's own disk even where homes are shared.

    What jobs keep there besides is in its folder `state`.
    """
    folder = Path(tempfile.gettempdir()) / f"adapt-inputs-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.lstat().st_uid != os.getuid():
        raise InputError(f"{folder}: belongs to another user; set TMPDIR to a folder of your own")
    return folder
