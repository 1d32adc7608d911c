"""Checkpoints and results take their place by rename: nothing is written twice."""

from contextlib import suppress
from pathlib import Path

from adapt.preference.checkpoints import SUMMARY, LocalCheckpoints
from adapt.preference.result import deliver


def written(folder: Path, text: str, name: str = "weights") -> int:
    """A folder with a file; returns the file's number on its file system."""
    folder.mkdir()
    (folder / name).write_text(text)
    return (folder / name).stat().st_ino


def test_a_checkpoint_is_moved_and_replaces_the_one_before(tmp_path):
    places = LocalCheckpoints(tmp_path / "train")
    with places.workspace() as work:
        assert places.kept is None
        for text in ("first", "second"):
            number = written(work / text, text)
            places.save(work / text)
            assert (places.kept / "weights").read_text() == text
            assert (places.kept / "weights").stat().st_ino == number
            assert not (work / text).exists()
    assert [path.name for path in (tmp_path / "train").iterdir()] == ["checkpoint"]


def test_a_result_is_moved_to_where_it_is_asked_for(tmp_path):
    places, out = LocalCheckpoints(tmp_path / "train"), tmp_path / "out"
    out.mkdir()
    with places.workspace() as work:
        written(work / "final", '{"loss": 1.5}', SUMMARY)
        number = written(work / "final/model", "weights")
        places.save(work / "final")
    assert places.kept is None
    assert deliver(places.result, out) == {"loss": 1.5}
    assert (out / "model/weights").stat().st_ino == number
    assert [path.name for path in out.iterdir()] == ["model"]


def test_what_a_run_that_was_cut_off_left_goes_away(tmp_path):
    places = LocalCheckpoints(tmp_path / "train")
    written_to = tmp_path / "train/work"
    written_to.mkdir(parents=True)
    (written_to / "half").write_text("a part of a checkpoint")
    with places.workspace() as work:
        assert not any(work.iterdir())


def test_a_kill_between_the_renames_costs_no_checkpoint(tmp_path, monkeypatch):
    places, known = LocalCheckpoints(tmp_path / "train"), Path.rename

    def killed(path: Path, target: Path) -> Path:
        if path.name == "second":
            raise KeyboardInterrupt
        return known(path, target)

    monkeypatch.setattr(Path, "rename", killed)
    with places.workspace() as work:
        for text in ("first", "second"):
            written(work / text, text)
            with suppress(KeyboardInterrupt):
                places.save(work / text)
    assert places.kept is None
    with places.latest() as checkpoint:
        assert (checkpoint / "weights").read_text() == "first"
    assert [path.name for path in (tmp_path / "train").iterdir()] == ["checkpoint"]
