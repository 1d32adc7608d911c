"""Files and folders that are whole or absent, locks between processes, and what storages raise."""

import fcntl
import os
import shutil
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO


@contextmanager
def whole_folder(target: Path) -> Iterator[Path]:
    """A fresh folder that replaces `target` when the block ends well, and else leaves it alone."""
    partial = target.parent / f".{target.name}.partial-{os.getpid()}"
    previous = target.parent / f".{target.name}.previous-{os.getpid()}"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        yield partial
        if target.exists():
            target.rename(previous)
        partial.rename(target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
        shutil.rmtree(previous, ignore_errors=True)


@contextmanager
def whole_file(target: Path) -> Iterator[Path]:
    """A path beside `target` that becomes `target` when the block ends well."""
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f"{target.name}.{uuid.uuid4().hex}")
    try:
        yield partial
        partial.rename(target)
    finally:
        partial.unlink(missing_ok=True)


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
