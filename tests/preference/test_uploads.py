"""Checkpoints that are uploaded beside the training: one at a time, whole or told.

Ray's own upload to a storage; what starts it in a thread stands for Ray's worker.
"""

from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest
import torch
from ray.train.v2._internal.execution.storage import StorageContext

from adapt.cluster import storage
from adapt.params import InputError
from adapt.preference.best import Best
from adapt.preference.uploads import Uploads
from tests.support import limits, slow_store

__all__ = ["slow_store"]  # a protocol


@pytest.fixture
def reported(tmp_path, monkeypatch):
    """Files of the checkpoints that have been reported, in the order of their arrival."""
    place = storage.as_arrow(f"slow://{tmp_path}/store")
    there = StorageContext(experiment_dir_name="train", **place)
    context = SimpleNamespace(get_storage=lambda: there)
    names, found = iter(("checkpoint_2001", "checkpoint_2002", "checkpoint_2003")), []
    with ThreadPoolExecutor(1) as thread:

        def report(metrics, checkpoint, checkpoint_upload_fn, **_) -> None:
            def work(name: str) -> None:
                made = checkpoint_upload_fn(checkpoint, name)
                found.append([info.base_name for info in _listed(made)])

            thread.submit(work, next(names))

        monkeypatch.setattr("ray.train.get_context", lambda: context)
        monkeypatch.setattr("ray.train.report", report)
        yield found


def _listed(checkpoint):
    from pyarrow.fs import FileSelector

    return checkpoint.filesystem.get_file_info(FileSelector(checkpoint.path))


def folder(tmp_path, name: str):
    path = tmp_path / "work" / name
    path.mkdir(parents=True)
    (path / name).write_text("weights")
    return path


def test_work_goes_on_while_a_checkpoint_travels_and_one_goes_at_a_time(tmp_path, reported):
    hold, uploads = tmp_path / "hold", Uploads()
    hold.mkdir()
    uploads.start(folder(tmp_path, "first"))
    assert reported == [] and [p.name for p in (tmp_path / "work").iterdir()] == ["uploading-first"]
    with ThreadPoolExecutor(1) as training:
        second = training.submit(uploads.start, folder(tmp_path, "second"))
        assert not second.done() and reported == []
        hold.rmdir()
        second.result(limits.STEP_S)
    uploads.end()
    limits.until(lambda: reported == [["first"], ["second"]], "arrival of both")
    assert not any((tmp_path / "work").iterdir()), "what has arrived takes no room here"


def test_the_best_weights_travel_inside_of_a_checkpoint(tmp_path, reported):
    best, uploads = Best(tmp_path), Uploads()
    best.keep([("a", torch.ones(3))], is_first=True)
    checkpoint = folder(tmp_path, "first")
    best.accompany(checkpoint)
    uploads.start(checkpoint)
    uploads.end()
    arrived, other = tmp_path / "store/train/checkpoint_2001", Best(tmp_path / "elsewhere")
    other.go_on(arrived)
    other.keep([("a", torch.zeros(3))], is_first=True)
    model = torch.nn.ParameterDict({"a": torch.zeros(3)})
    best.fill(model)
    assert model["a"].tolist() == [1, 1, 1]
    Best(arrived).fill(model)
    assert model["a"].tolist() == [1, 1, 1], "new ones are new files"


def test_an_upload_that_fails_is_one_line_and_the_one_before_stays(tmp_path, reported):
    uploads = Uploads()
    uploads.start(folder(tmp_path, "first"))
    uploads.end()
    (tmp_path / "fail").mkdir()
    uploads.start(folder(tmp_path, "second"))
    uploads.end()
    says = r"^ADAPT_RAY_STORAGE: .*store: a checkpoint could not be uploaded \(.*bucket is away\); "
    with pytest.raises(InputError, match=f"{says}the one before is kept; run again to go on"):
        uploads.start(folder(tmp_path, "third"))
    assert reported == [["first"]]
    assert (tmp_path / "store/train/checkpoint_2001/first").read_text() == "weights"
