"""An object store in a folder, `slow:///folder`, in which uploads of checkpoints wait, or fail.

Importing this makes the protocol known. While `folder/../hold` exists, nothing is written into a
checkpoint; where `folder/../fail` exists, the next checkpoint after the first is refused.
"""

import errno
import time
from pathlib import Path
from typing import Any

import fsspec
from fsspec.implementations.dirfs import DirFileSystem
from fsspec.implementations.local import LocalFileSystem


class SlowStore(DirFileSystem):
    """Files of this machine that are not taken for a mounted file system's."""

    protocol = "slow"
    first: str | None = None  # checkpoint that this process has written to

    def __init__(self, **_: Any) -> None:
        super().__init__(path="/", fs=LocalFileSystem(auto_mkdir=True))

    def _join(self, path: Any) -> Any:
        return path

    def _relpath(self, path: Any) -> Any:
        return path

    @classmethod
    def _strip_protocol(cls, path: Any) -> Any:
        return path.removeprefix("slow://") if isinstance(path, str) else path

    def open(self, path: str, mode: str = "rb", *args: Any, **kwargs: Any) -> Any:
        """A file; one of a checkpoint that is written, when it may be."""
        made = next((part for part in Path(path).parts if part.startswith("checkpoint_20")), None)
        if made and "w" in mode:
            self._checked(Path(path.partition("/store/")[0]), made)
        return super().open(path, mode, *args, **kwargs)

    def _checked(self, control: Path, made: str) -> None:
        while (control / "hold").exists():
            time.sleep(0.1)
        SlowStore.first = SlowStore.first or made
        if made != SlowStore.first and (control / "fail").exists():
            raise OSError(errno.EIO, "the bucket is away")


fsspec.register_implementation("slow", SlowStore, clobber=True)
