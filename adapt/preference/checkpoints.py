"""Where a training run keeps its last checkpoint, and at its end the result: a folder, or Ray.

A checkpoint of full training holds weights and Adam's two moments in float32, 12 bytes a weight, so
it is written once: into a folder on the same file system, from where it moves to its place. The
result is saved as a checkpoint is, as a folder with the file `SUMMARY`. Of either, a damaged one is
put aside (`manifest`).
"""

import contextlib
import dataclasses
import errno
import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

from adapt.files import scratch
from adapt.names import one_line
from adapt.params import InputError
from adapt.preference import manifest
from adapt.preference.uploads import Uploads

SUMMARY = "summary.json"
SNAPSHOT = "checkpoint_manager_snapshot.json"  # Ray Train's list of its checkpoints
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


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

    @property
    def _former(self) -> Path:
        """What makes room for a new checkpoint, as long as that takes."""
        return self.folder / "old"

    @contextlib.contextmanager
    def latest(self) -> Iterator[Path | None]:
        """The last checkpoint, if it is whole; the one before, if `save` was killed at its turn."""
        if self.kept is None and self._former.exists():
            self._former.rename(self.folder / "checkpoint")
        yield whole(self.kept)

    @contextlib.contextmanager
    def workspace(self) -> Iterator[Path]:
        """A folder beside the checkpoint."""
        with _emptied(self.folder / "work") as path:
            yield path

    def save(self, folder: Path) -> None:
        """Replace the checkpoint, or the result, by `folder`."""
        target = self.result if (folder / SUMMARY).exists() else self.folder / "checkpoint"
        manifest.write(folder)
        # The old one leaves by rename first, so that a half-deleted one is never taken for whole.
        shutil.rmtree(self._former, ignore_errors=True)
        if target.exists():
            target.rename(self._former)
        folder.rename(target)
        shutil.rmtree(self._former, ignore_errors=True)
        if target == self.result and self.kept is not None:
            shutil.rmtree(self.kept)


@dataclasses.dataclass(frozen=True)
class RayCheckpoints:
    """Checkpoints of a Ray Train worker: moved on a file system, uploaded to anything else.

    Ray merges the workers' files and hands all of them back. Made in the driver, used in a worker,
    which alone imports `ray.train`.

    Args:
        rescued: where `rescue` has put a checkpoint, which counts while Ray has none.
        uploads: those of this worker.
    """

    rescued: Path
    uploads: Uploads = dataclasses.field(default_factory=Uploads)

    @contextlib.contextmanager
    def latest(self) -> Iterator[Path | None]:
        """The last checkpoint that Ray has registered and that is whole."""
        import ray.train

        checkpoint = ray.train.get_checkpoint()
        if checkpoint is None:
            yield self.rescued if self.rescued.exists() else None
            return
        with checkpoint.as_directory() as folder:
            # All workers look at the same files, and come to the same end.
            yield whole(Path(folder))

    @contextlib.contextmanager
    def workspace(self) -> Iterator[Path]:
        """A folder of this worker's: on Ray's storage where that is a file system, else temporary.

        It lies beside the run's own folder, in which Ray takes everything for a checkpoint.
        """
        import ray.train

        context = ray.train.get_context()
        run = _local(context.get_storage())
        if run is None:
            with scratch("adapt-train-") as folder:
                try:
                    yield folder
                finally:
                    self.uploads.end()
            return
        with _emptied(run.with_name(f".{run.name}-{context.get_world_rank()}")) as path:
            yield path

    def save(self, folder: Path) -> None:
        """Report the folder; a barrier over all workers."""
        import ray.train

        context = ray.train.get_context()
        manifest.write(folder, context.get_world_rank(), context.get_world_size())
        if _local(context.get_storage()) is None:
            self.uploads.start(folder)
            return
        checkpoint = ray.train.Checkpoint.from_directory(str(folder))
        ray.train.report({}, checkpoint=checkpoint, checkpoint_upload_fn=_move)


def whole(folder: Path | None) -> Path | None:
    """`folder`, or None where there is none or it is damaged; a damaged one is put aside."""
    if folder is None or not folder.exists():
        return None
    problem = manifest.problem(folder)
    if not problem:
        return folder
    aside = folder.with_name(f".{folder.name}.damaged")
    shutil.rmtree(aside, ignore_errors=True)
    with contextlib.suppress(OSError):  # another worker was faster
        folder.rename(aside)
    print(
        one_line(f"train: {folder} is damaged ({problem}); put aside as {aside.name}"),
        file=sys.stderr,
    )
    return None


def rescue(run: Path, to: Path) -> None:
    """Make Ray Train's folder of a run that was cut off fit to go on with.

    Ray gives up a run whose list of checkpoints was being written when it was killed, or names one
    that is not whole. Then the newest whole checkpoint moves to `to`, and the rest goes away.
    """
    if not run.is_dir() or _is_fit(run):
        return
    for checkpoint in sorted(run.glob("checkpoint_*"), reverse=True):
        if whole(checkpoint):
            shutil.rmtree(to, ignore_errors=True)
            checkpoint.rename(to)
            break
    else:
        problem = f"{run} was cut off before a checkpoint was whole"
        line = one_line(f"train: {problem}; training starts from the beginning")
        print(line, file=sys.stderr)
    shutil.rmtree(run)


def _is_fit(run: Path) -> bool:
    """Whether Ray's list can be read, and the checkpoints that it names are there and whole."""
    try:
        listed = json.loads((run / SNAPSHOT).read_text(encoding="utf-8"))
        named = [one["checkpoint_dir_name"] for one in listed["checkpoint_results"]]
        return not any(manifest.problem(run / str(name)) for name in named)
    except (OSError, ValueError, KeyError, TypeError):
        return False


@contextlib.contextmanager
def room(folder: Path) -> Iterator[None]:
    """Say in one line that the disk of `folder` is full, whichever library finds that out."""
    from safetensors import SafetensorError

    try:
        yield
    except (OSError, RuntimeError, SafetensorError) as error:
        known = isinstance(error, OSError) and error.errno in FULL
        told = any(f"os error {number}" in str(error) for number in FULL)
        if not (known or told or shutil.disk_usage(folder).free < 2**20):
            raise
        problem = f"{folder}: the disk is full, so a checkpoint could not be written"
        advice = "the one before is kept; free some space and run again, to go on from there"
        raise InputError(f"{problem}; {advice}") from None


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
