"""Where a training run keeps its last checkpoint, and at its end the result: a folder, or Ray.

The result is saved as a checkpoint is, as a folder with the file `SUMMARY`.
"""

import contextlib
import dataclasses
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

SUMMARY = "summary.json"


class Checkpoints(Protocol):
    """Where a loop finds its last checkpoint and leaves new ones."""

    def latest(self) -> contextlib.AbstractContextManager[Path | None]:
        """The last checkpoint as a local folder, or None for a fresh start."""

    def save(self, folder: Path) -> None:
        """Keep a copy of `folder`; every worker calls it, with its own share of the files."""


@dataclasses.dataclass(frozen=True)
class LocalCheckpoints:
    """Checkpoints of the in-process run: one in `folder`, replaced by rename."""

    folder: Path

    @property
    def kept(self) -> Path | None:
        """The last checkpoint."""
        path = self.folder / "checkpoint"
        return path if path.exists() else None

    @property
    def result(self) -> Path:
        """The result of a run that has ended."""
        return self.folder / "final"

    @contextlib.contextmanager
    def latest(self) -> Iterator[Path | None]:
        """The last checkpoint."""
        yield self.kept

    def save(self, folder: Path) -> None:
        """Replace the checkpoint, or the result by one."""
        target = self.result if (folder / SUMMARY).exists() else self.folder / "checkpoint"
        fresh = self.folder / "fresh"
        shutil.rmtree(fresh, ignore_errors=True)
        shutil.copytree(folder, fresh)
        shutil.rmtree(target, ignore_errors=True)
        fresh.rename(target)


class RayCheckpoints:
    """Checkpoints of a Ray Train worker.

    Ray merges the workers' files and hands all of them back. Made in the driver, used in a worker,
    which alone imports `ray.train`.
    """

    @contextlib.contextmanager
    def latest(self) -> Iterator[Path | None]:
        """The last checkpoint that Ray has registered."""
        import ray.train

        checkpoint = ray.train.get_checkpoint()
        if checkpoint is None:
            yield None
            return
        with checkpoint.as_directory() as folder:
            yield Path(folder)

    def save(self, folder: Path) -> None:
        """Report the folder; a barrier over all workers."""
        import ray.train

        ray.train.report({}, checkpoint=ray.train.Checkpoint.from_directory(str(folder)))
