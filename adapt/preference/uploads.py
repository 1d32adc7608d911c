"""Checkpoints of a Ray Train worker on their way to an object store, while training goes on.

Ray makes the directory's name known to all workers, and uploads in a thread of each. It registers a
checkpoint when all of them have ended, and deletes the oldest then: an upload that fails costs none
that was there. One checkpoint is on its way at a time, so that at most two take room on a node.
"""

import shutil
from concurrent.futures import Future
from concurrent.futures import wait as ended
from pathlib import Path
from typing import Any

from adapt.files import storage_errors
from adapt.params import InputError


class Uploads:
    """The uploads of one worker, one after another. Without any it pickles."""

    def __init__(self) -> None:
        self._last: Future[None] | None = None

    def start(self, folder: Path) -> None:
        """Take `folder` over, and report it to Ray when it is there; all workers call it.

        Raises InputError for the upload before, if that has failed.
        """
        import ray.train

        # 1. The one before has to be there: both at once would take the room of three.
        if self._last is not None:
            self._last.result()
        # 2. Away from where transformers makes checkpoints, and deletes the oldest.
        taken = folder.rename(folder.with_name(f"uploading-{folder.name}"))
        storage = ray.train.get_context().get_storage()
        running: Future[None] = Future()

        def upload(checkpoint: Any, name: str) -> Any:
            try:
                made = _uploaded(storage, checkpoint, name)
                shutil.rmtree(taken)
            except BaseException as error:
                running.set_exception(error)
                raise
            running.set_result(None)
            return made

        # 3. Ray ends the training, and starts it again from the last checkpoint, where this fails.
        ray.train.report(
            {},
            checkpoint=ray.train.Checkpoint.from_directory(str(taken)),
            checkpoint_upload_mode=ray.train.CheckpointUploadMode.ASYNC,
            delete_local_checkpoint_after_upload=False,
            checkpoint_upload_fn=upload,
        )
        self._last = running

    def end(self) -> None:
        """Wait until the last one is there, or has failed."""
        if self._last is not None:
            ended([self._last])


def _uploaded(storage: Any, checkpoint: Any, name: str) -> Any:
    """Ray's own upload; what the storage refuses is one line."""
    try:
        return storage.persist_current_checkpoint(checkpoint, name)
    except storage_errors() as error:
        problem = str(error).strip() or type(error).__name__
        where = f"{storage.storage_fs_path}: a checkpoint could not be uploaded ({problem})"
        advice = "the one before is kept; run again to go on from there"
        raise InputError(f"ADAPT_RAY_STORAGE: {where}; {advice}") from None
