"""Files and folders that are whole or absent, locks between processes, and what storages raise.

Whoever writes does so beside the target, under a name with ".partial-", and holds that name as a
lock for as long as he lives. What nobody holds belongs to a process that was killed, and the next
one that writes there takes it away; a target that such a process had moved aside comes back.
"""

import fcntl
import glob
import os
import shutil
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TextIO

_OWN: set[tuple[int, int]] = set()  # device and inode of the fresh folders of this process
YOUNG_S = 60.0  # a folder younger than this may be about to be held
SLOTS = 64  # writers of one file at the same time that find each other's remains


@contextmanager
def whole_folder(target: Path) -> Iterator[Path]:
    """A fresh folder that replaces `target` when the block ends well, and else leaves it alone."""
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".{target.name}.partial-{uuid.uuid4().hex[:8]}")
    # Made and held in one turn, so that nobody takes it for a dead process's.
    with _turn(target.parent):
        _sweep(target.parent, glob.escape(target.name))
        partial.mkdir()
        holder = os.open(partial, os.O_RDONLY)
        _hold(holder)
    own = _identity(holder)
    _OWN.add(own)
    try:
        yield partial
        with _turn(target.parent):
            _swap(partial, target)
    finally:
        _OWN.discard(own)
        shutil.rmtree(partial, ignore_errors=True)
        os.close(holder)


def sweep(folder: Path) -> None:
    """Take away what dead processes were writing in `folder`; what they had moved aside returns."""
    if folder.is_dir():
        with _turn(folder):
            _sweep(folder, "*")


@contextmanager
def whole_file(target: Path) -> Iterator[Path]:
    """A path beside `target` that becomes `target` when the block ends well."""
    target.parent.mkdir(parents=True, exist_ok=True)
    partial, holder = _slot(target)
    is_done = False
    try:
        yield partial
        partial.rename(target)
        is_done = True
    finally:
        # After the rename the name may be another writer's.
        if not is_done:
            partial.unlink(missing_ok=True)
        os.close(holder)


@contextmanager
def locked(path: Path, *, wait: bool = True) -> Iterator[TextIO]:
    """Hold `path` as a lock; the kernel drops it with its holder, however that ends.

    Raises BlockingIOError where another process has it and `wait` is false; yields the open file,
    in which a holder may leave its name.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+", encoding="utf-8") as file:
        fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        yield file


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Hold an existing folder, so that `is_held` says so while this process lives."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        _hold(descriptor)
        yield
    finally:
        os.close(descriptor)


@contextmanager
def scratch(prefix: str) -> Iterator[Path]:
    """A temporary folder, gone at the end of the block.

    Where this process is killed it goes with the next one that asks for such a folder.
    """
    place = Path(tempfile.gettempdir())
    sweep_folders(place, prefix)
    with tempfile.TemporaryDirectory(prefix=prefix, dir=place) as name, held(Path(name)):
        yield Path(name)


def sweep_folders(place: Path, prefix: str) -> None:
    """Remove our folders in `place` whose names begin so and whose processes were killed."""
    for folder in place.glob(f"{glob.escape(prefix)}*"):
        try:
            found = folder.stat(follow_symlinks=False)
        except FileNotFoundError:  # somebody else was faster
            continue
        is_young = time.time() - found.st_mtime < YOUNG_S
        if found.st_uid == os.getuid() and not is_young and not is_held(folder):
            shutil.rmtree(folder, ignore_errors=True)


def is_held(path: Path) -> bool:
    """Whether a living process holds the file or folder `path`; False where there is none."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        return False
    except OSError:
        return True  # not ours to judge: another user's, or a link
    try:
        return not _hold(descriptor)
    finally:
        os.close(descriptor)


def linked(source: str | Path, target: str | Path) -> str:
    """The file under a second name; a copy where its file system has no hard links."""
    Path(target).parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(Path(source).resolve(), target)
    except OSError:
        shutil.copy2(source, target)
    return str(target)


def delete(path: Path) -> None:
    """Remove a file, a link or a folder, as far as that is possible; links are not followed."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
        return
    with suppress(OSError):
        path.unlink()


def _swap(partial: Path, target: Path) -> None:
    """Put `partial` in the place of `target`; what a kill leaves half done, `_sweep` undoes."""
    previous = _previous(target)
    if os.path.lexists(target):
        target.rename(previous)
    try:
        partial.rename(target)
    finally:
        # A signal or an error between the two renames: the former one stays.
        if not os.path.lexists(target) and os.path.lexists(previous):
            previous.rename(target)
    delete(previous)


def _previous(target: Path) -> Path:
    return target.with_name(f".{target.name}.previous")


def _sweep(folder: Path, name: str) -> None:
    """Undo and take away, in a turn, what dead writers of `name` (a pattern) left."""
    for previous in folder.glob(f".{name}.previous"):
        target = folder / previous.name.removeprefix(".").removesuffix(".previous")
        if os.path.lexists(target):
            delete(previous)  # killed after both renames
        else:
            previous.rename(target)
    for partial in folder.glob(f".{name}.partial-*"):
        _delete_unheld(partial)


def _delete_unheld(path: Path) -> None:
    """Delete what nobody holds, and hold it meanwhile: `_slot` would else take it just then."""
    with suppress(OSError):  # gone by now, another user's, or a link
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        try:
            if _hold(descriptor):
                delete(path)
        finally:
            os.close(descriptor)


@contextmanager
def _turn(folder: Path) -> Iterator[None]:
    """Alone among those who rename in `folder`, where its file system can lock a folder."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        # A fresh folder is locked by its writer, who would wait for itself; nobody else is in it.
        if _identity(descriptor) not in _OWN:
            with suppress(OSError):
                fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _identity(descriptor: int) -> tuple[int, int]:
    found = os.fstat(descriptor)
    return found.st_dev, found.st_ino


def _slot(target: Path) -> tuple[Path, int]:
    """An empty file beside `target`, held: the first name that no living process holds.

    A dead process's is used again, so that nothing has to be searched for in a large folder.
    """
    for number in range(SLOTS):
        partial = target.with_name(f".{target.name}.partial-{number}")
        descriptor = os.open(partial, os.O_CREAT | os.O_RDWR | os.O_NOFOLLOW, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Its former holder may have renamed it between the opening and the lock.
            if _is_at(descriptor, partial):
                os.ftruncate(descriptor, 0)
                return partial, descriptor
        except BlockingIOError:
            pass
        except OSError:  # a file system without locks, where nobody can hold the name
            os.close(descriptor)
            partial.unlink(missing_ok=True)
            break
        os.close(descriptor)
    partial = target.with_name(f".{target.name}.partial-{uuid.uuid4().hex[:8]}")
    return partial, os.open(partial, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o666)


def _hold(descriptor: int) -> bool:
    """Lock an open file or folder; False when another has it or its file system has no locks."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _is_at(descriptor: int, path: Path) -> bool:
    try:
        found = os.stat(path, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return os.path.samestat(found, os.fstat(descriptor))


def check_room(folder: Path, size: int = 1 << 20) -> None:
    """Raise, naming the folder, what writing a file of `size` bytes in it would raise."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            os.posix_fallocate(file.fileno(), 0, size)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(folder)) from None


def storage_errors() -> tuple[type[Exception], ...]:
    """What drivers of storages raise; botocore's and the hub's errors are no OSErrors."""
    kinds: list[type[Exception]] = [OSError, ImportError, ValueError]
    if "botocore" in sys.modules:
        from botocore.exceptions import BotoCoreError, ClientError

        kinds += [BotoCoreError, ClientError]
    if "huggingface_hub" in sys.modules:
        from huggingface_hub.errors import HTTPError

        kinds.append(HTTPError)
    return tuple(kinds)
