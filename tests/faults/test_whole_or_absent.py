"""Results are whole or absent: what a killed writer leaves is taken away, and nothing older is
lost.
"""

import errno
import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from adapt.files import sweep, whole_file, whole_folder
from tests.support import limits
from tests.support.faults import fault

WRITER = """
import os, signal, sys
from pathlib import Path
from adapt.files import whole_file, whole_folder

where, moment = Path(sys.argv[1]), sys.argv[2]
renames = []

def rename(path, target, known=Path.rename):
    renames.append(path)
    if moment == f"rename {len(renames)}":
        os.kill(os.getpid(), signal.SIGKILL)
    return known(path, target)

Path.rename = rename
if moment == "file":
    with whole_file(where) as partial:
        partial.write_text("half")
        os.kill(os.getpid(), signal.SIGKILL)
with whole_folder(where) as out:
    (out / "new").write_text("2")
    if moment == "writing":
        os.kill(os.getpid(), signal.SIGKILL)
"""


def killed(target: Path, moment: str) -> None:
    """A process that writes `target` is killed at a moment."""
    command = [sys.executable, "-c", WRITER, str(target), moment]
    done = subprocess.run(command, timeout=limits.COMMAND_S)
    assert done.returncode == -signal.SIGKILL


def content(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


@fault(
    "A stage is killed while it writes its results",
    keeps="the results of before",
    then="takes the half-written folder away, and writes its own",
)
def test_a_killed_writer_leaves_the_former_results(tmp_path):
    with whole_folder(tmp_path / "train") as out:
        (out / "old").write_text("1")
    killed(tmp_path / "train", "writing")
    assert content(tmp_path / "train") == ["old"]
    assert len(list(tmp_path.glob(".train.partial-*"))) == 1
    with whole_folder(tmp_path / "train") as out:
        assert [path.name for path in tmp_path.glob(".*")] == [out.name]
        (out / "new").write_text("2")
    assert content(tmp_path) == ["train", "train/new"]


@fault(
    "A stage is killed between the two renames that put its results in place",
    keeps="the results of before, which return",
    then="runs the stage again",
)
@pytest.mark.parametrize("moment", ["rename 1", "rename 2"])
def test_a_kill_between_the_renames_is_undone(tmp_path, moment):
    with whole_folder(tmp_path / "train") as out:
        (out / "old").write_text("1")
    killed(tmp_path / "train", moment)
    assert (tmp_path / "train").exists() == (moment == "rename 1")
    sweep(tmp_path)
    assert content(tmp_path) == ["train", "train/old"]


def test_an_error_between_the_renames_is_undone_at_once(tmp_path, monkeypatch):
    with whole_folder(tmp_path / "train") as out:
        (out / "old").write_text("1")
    known = Path.rename

    def rename(path: Path, target: Path) -> Path:
        if ".partial-" in path.name:
            raise OSError(5, "Input/output error")
        return known(path, target)

    monkeypatch.setattr(Path, "rename", rename)
    with pytest.raises(OSError, match="Input/output"), whole_folder(tmp_path / "train") as out:
        (out / "new").write_text("2")
    assert content(tmp_path) == ["train", "train/old"]


@fault(
    "A process is killed while it writes a file",
    keeps="the file of before",
    then="uses the half-written file's name again, so that none stays",
)
def test_a_killed_writer_of_a_file_leaves_the_former_one(tmp_path):
    with whole_file(tmp_path / "a.json") as partial:
        partial.write_text("old")
    killed(tmp_path / "a.json", "file")
    assert (tmp_path / "a.json").read_text() == "old"
    assert content(tmp_path) == [".a.json.partial-0", "a.json"]
    with whole_file(tmp_path / "a.json") as partial:
        assert partial.read_text() == ""
        partial.write_text("new")
    assert content(tmp_path) == ["a.json"] and (tmp_path / "a.json").read_text() == "new"


@fault(
    "Two processes write the same results at once",
    keeps="the results of one of them, as a whole",
    then="finds nothing half-written",
)
def test_many_writers_of_one_target(tmp_path):
    def write(number: int) -> None:
        with whole_folder(tmp_path / "train") as out:
            for name in "abc":
                (out / name).write_text(str(number))
        with whole_file(tmp_path / "a.json") as partial:
            partial.write_text(str(number) * 1000)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(write, range(200)))
    assert len({path.read_text() for path in (tmp_path / "train").iterdir()}) == 1
    text = (tmp_path / "a.json").read_text()
    assert len(set(text.split(text[:3]))) == 1 or len(set(text)) == 1
    assert content(tmp_path) == ["a.json", "train", "train/a", "train/b", "train/c"]


def test_what_a_living_process_writes_is_left_alone(tmp_path):
    with whole_folder(tmp_path / "train") as out, whole_file(tmp_path / "a") as partial:
        sweep(tmp_path)
        assert out.is_dir() and partial.exists()
        (out / "new").write_text("2")
    assert content(tmp_path) == ["a", "train", "train/new"]


def test_names_are_no_patterns_and_links_are_not_followed(tmp_path):
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "mine").write_text("1")
    os.symlink(tmp_path / "outside", tmp_path / ".[ab].partial-link")
    (tmp_path / ".a.partial-0").write_text("another's")
    with whole_folder(tmp_path / "[ab]") as out:
        (out / "new").write_text("2")
    assert (tmp_path / ".a.partial-0").exists() and (tmp_path / "outside" / "mine").exists()


def test_a_folder_inside_a_fresh_folder_does_not_wait_for_itself(tmp_path: Path) -> None:
    with whole_folder(tmp_path / "outer") as outer, whole_folder(outer / "in") as inner:
        (inner / "x").write_text("x")
    assert (tmp_path / "outer" / "in" / "x").read_text() == "x"
    assert [path.name for path in tmp_path.iterdir()] == ["outer"]


def test_a_file_system_without_locks_keeps_no_half_written_names(tmp_path, monkeypatch):
    def refused(*_: object) -> None:
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr("fcntl.flock", refused)
    for text in ("one", "two"):
        with whole_file(tmp_path / "a") as partial:
            partial.write_text(text)
    assert content(tmp_path) == ["a"] and (tmp_path / "a").read_text() == "two"
