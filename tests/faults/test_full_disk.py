"""A disk that is full, or a file that may not grow: one line, and everything earlier as it was.

A command that works does so on a small disk of its own where one can be mounted, elsewhere under
the kernel's limit on the size of files.
"""

import errno
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from adapt import environment, files
from adapt.command import FULL
from adapt.launch import launch
from adapt.stages import data
from tests.support import disks, limits, quick, tracked
from tests.support.closure import ROOT
from tests.support.faults import fault

COMMANDS = {  # each as long as it takes to import it; those that need no disk end well
    "tracking status": ("adapt.tracking", "status"),
    "promote status": ("flows.promote", "status"),
    "retrain": ("flows.retrain",),
}


@pytest.fixture
def full(tmp_path: Path) -> Iterator[Path]:
    """A disk of its own in which every test makes what it needs and then fills the rest."""
    with disks.disk(tmp_path / "disk", "8m") as folder:
        yield folder


@pytest.fixture(scope="module")
def without_room(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A workspace on a disk that is full."""
    with disks.disk(tmp_path_factory.mktemp("full") / "disk", "8m") as folder:
        (folder / "ws").mkdir()
        quick.make(folder / "ws")
        disks.fill(folder)
        yield folder / "ws"


def run(root: Path, *words: str) -> subprocess.CompletedProcess[str]:
    env = quick.environment(root)
    words = (sys.executable, "-m", *words)
    options = {"cwd": root, "env": env, "timeout": limits.COMMAND_S, "stdin": subprocess.DEVNULL}
    return subprocess.run(words, capture_output=True, text=True, **options)


@fault(
    "the disk is full when a command starts, whichever it is",
    keeps="the workspace, file by file",
    says=f"retrain: DVC: {FULL} (...)",
    then="runs as ever when there is room",
)
@pytest.mark.parametrize("words", COMMANDS.values(), ids=COMMANDS)
def test_commands_on_a_full_disk(without_room: Path, words: tuple[str, ...]) -> None:
    root = without_room
    before = sorted(path for path in root.rglob("*") if ".state" not in path.parts)
    done = run(root, *words)
    assert done.returncode in (0, 1, 2) and "Traceback" not in done.stderr
    assert len(done.stderr.splitlines()) <= 1, done.stderr
    if done.returncode:
        assert "the disk is full; make room" in done.stderr
    lost = set(before) - set(root.rglob("*"))
    assert not lost


@pytest.fixture
def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The workspace of a stage with a result of an earlier run; its state is on another disk."""
    monkeypatch.setenv("ADAPT_STATE", str(tmp_path / "state"))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    tracked.alone(tmp_path)
    for key, value in {**environment.DEFAULTS, "PREFECT_HOME": str(tmp_path / "prefect")}.items():
        monkeypatch.setenv(key, value)
    monkeypatch.setattr("sys.argv", ["stage"])
    yield tmp_path


def earlier(root: Path) -> Path:
    (root / "results" / "data").mkdir(parents=True)
    (root / "results" / "data" / "metrics.json").write_text("earlier")
    shutil.copy2(ROOT / "params.yaml", root)
    return root


def refused(root: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """The line of stage data, which must end with exit code 2 and leave the earlier result."""
    with pytest.raises(SystemExit) as stopped:
        launch("data")
    assert stopped.value.code == 2
    assert (root / "results" / "data" / "metrics.json").read_text() == "earlier"
    assert not list((root / "results").glob(".*")), "nothing half-written stays"
    (line,) = [one for one in capsys.readouterr().err.splitlines() if one.startswith("adapt data")]
    return line


def writes(size: int) -> object:
    def work(config: object, results: Path, out: Path, log: object) -> dict[str, float]:
        with (out / "big").open("wb", buffering=0) as file:
            written = 0
            while written < size:
                written += file.write(bytes(1 << 16))
        return {"rows": 1.0}

    return work


@fault(
    "the disk fills while a stage writes its result",
    keeps="the result of the run before, whole",
    says=f"adapt data: {FULL}",
    then="the stage runs again, from its last checkpoint where it has one",
)
def test_a_stage_that_fills_the_disk(
    stage: Path, full: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    root = earlier(full / "ws")
    monkeypatch.chdir(root)
    monkeypatch.setattr(data, "run", writes(1 << 24))
    assert refused(root, capsys).endswith(FULL)
    monkeypatch.setattr(data, "run", writes(1 << 10))
    launch("data")
    assert (root / "results" / "data" / "big").stat().st_size == 1 << 16


@fault(
    "a file of a result grows beyond the limit of the system or the shell (`ulimit -f`)",
    keeps="the result of the run before, whole",
    says="adapt data: larger than a file may be here; raise the limit (`ulimit -f`) and run ...",
)
def test_a_stage_whose_file_may_not_grow(
    stage: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    root = earlier(stage / "ws")
    monkeypatch.chdir(root)
    monkeypatch.setattr(data, "run", writes(1 << 26))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 24, before[1]))
    try:
        assert "raise the limit (`ulimit -f`)" in refused(root, capsys)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@fault(
    "more files are open than the system lets a process have",
    keeps="the result of the run before, whole",
    says="adapt data: ...: more than 1024 open files; raise the limit (`ulimit -n`) and run ...",
)
def test_a_stage_without_a_free_file(
    stage: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def work(*arguments: object) -> dict[str, float]:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE), "model.safetensors")

    root = earlier(stage / "ws")
    monkeypatch.chdir(root)
    monkeypatch.setattr(data, "run", work)
    assert "raise the limit (`ulimit -n`)" in refused(root, capsys)


def test_room_is_looked_for_before_a_server_is_started(full: Path) -> None:
    files.check_room(full / "prefect", 1 << 16)
    assert list((full / "prefect").iterdir()) == []
    disks.fill(full)
    with pytest.raises(OSError, match="prefect") as caught:
        files.check_room(full / "prefect", 1 << 16)
    assert caught.value.errno == errno.ENOSPC


@fault(
    "the output of a command goes to a disk that is full, or to a reader that has left",
    keeps="the work: only its words are lost",
    says=f"adapt.score: {FULL}",
)
def test_output_to_a_full_disk() -> None:
    words = [sys.executable, "-m", "adapt.score", "pope-questions", "--truth", "/dev/stdin"]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    given = '{"a.jpg": ["dog", "cup", "tree"], "b.jpg": ["car", "cat", "boat"]}'
    with open("/dev/full", "w") as out:
        done = subprocess.run(words, input=given, stdout=out, stderr=-1, text=True, env=env)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert done.stderr.splitlines()[-1].startswith("adapt.score: ")
