"""Where a training run keeps its last checkpoint, and at its end the result: a folder, or Ray.

A checkpoint of full training holds weights and Adam's two moments in float32, 12 bytes a weight, so
it is written once: into a folder on the same file system, from where it moves to its place. The
result is saved as a checkpoint is, as a folder with the file `SUMMARY`.
"""

import contextlib
import dataclasses
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

SUMMARY = "summary.json"


class Checkpoints(Protocol):
    """Where a loop finds its last checkpoint and leaves new ones."""

    def latest(self) -> contextlib.AbstractContextManager[Path | None]:
        """The last checkpoint as a local folder, or None for a fresh start."""

    def workspace(self) -> contextlib.AbstractContextManager[Path]:
        """A folder to write in, from which `save` moves."""

    def save(self, folder: Path) -> None:
        """Take `folder` over; every worker calls it, with its own share of the files."""


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

    @contextlib.contextmanager
    def workspace(self) -> Iterator[Path]:
        """A folder beside the checkpoint."""
        with _emptied(self.folder / "work") as path:
            yield path

    def save(self, folder: Path) -> None:
        """Replace the checkpoint, or the result, by `folder`."""
        target = self.result if (folder / SUMMARY).exists() else self.folder / "checkpoint"
        # The old one leaves by rename first, so that a half-deleted one is never taken for whole.
        old = self.folder / "old"
        shutil.rmtree(old, ignore_errors=True)
        if target.exists():
            target.rename(old)
        folder.rename(target)
        shutil.rmtree(old, ignore_errors=True)


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

    @contextlib.contextmanager
    def workspace(self) -> Iterator[Path]:
        """A folder of this worker's: on Ray's storage where that is a file system, else temporary.

        It lies beside the run's own folder, in which Ray takes everything for a checkpoint.
        """
        import ray.train

        context = ray.train.get_context()
        run = _local(context.get_storage())
        if run is None:
            with tempfile.TemporaryDirectory(prefix="adapt-train-") as folder:
                yield Path(folder)
            return
        with _emptied(run.with_name(f".{run.name}-{context.get_world_rank()}")) as path:
            yield path

    def save(self, folder: Path) -> None:
        """Report the folder; a barrier over all workers."""
        import ray.train

        checkpoint = ray.train.Checkpoint.from_directory(str(folder))
        is_local = _local(ray.train.get_context().get_storage()) is not None
        upload = _move if is_local else None
        ray.train.report({}, checkpoint=checkpoint, checkpoint_upload_fn=upload)


@contextlib.contextmanager
def _emptied(path: Path) -> Iterator[Path]:
    """A fresh folder; what a process that was cut off left there goes away."""
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir(parents=True)
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def _local(storage: Any) -> Path | None:
    """The run's folder on a storage of Ray Train's that is a file system seen from here, or None.

    The driver has made that folder. Where a node does not see it, Ray's own upload explains it.
    """
    folder = Path(storage.experiment_fs_path)
    return folder if storage.storage_filesystem.type_name == "local" and folder.exists() else None


def _move(checkpoint: Any, name: str) -> Any:
    """Ray's upload of a worker's share, by rename, into the folder that all workers share."""
    import ray.train

    storage = ray.train.get_context().get_storage()
    target = Path(storage.build_checkpoint_path_from_name(name))
    source = Path(checkpoint.path)
    for path in [path for path in source.rglob("*") if path.is_file()]:
        place = target / path.relative_to(source)
        place.parent.mkdir(parents=True, exist_ok=True)
        path.rename(place)
    return ray.train.Checkpoint(path=str(target), filesystem=storage.storage_filesystem)
