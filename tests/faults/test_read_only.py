"""A disk that may only be read, and folders that this user may not write to."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from adapt.command import LOCKED, READ_ONLY
from adapt.params import InputError
from adapt.tracking.store import opened
from tests.faults.test_full_disk import COMMANDS, run
from tests.support import disks, quick
from tests.support.faults import fault
from tests.test_command import of_sqlalchemy


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A workspace on a disk that may only be read."""
    with disks.disk(tmp_path_factory.mktemp("read-only") / "disk", "8m") as folder:
        (folder / "ws").mkdir()
        quick.make(folder / "ws")
        disks.read_only(folder)
        yield folder / "ws"


@fault(
    "the workspace lies on a disk that may only be read",
    keeps="everything",
    says=f"promote: .../.state/mlflow: {READ_ONLY}",
    then="runs as ever where the disk may be written to",
)
@pytest.mark.parametrize("words", COMMANDS.values(), ids=COMMANDS)
def test_commands_on_a_read_only_disk(root: Path, words: tuple[str, ...]) -> None:
    done = run(root, *words)
    assert done.returncode in (0, 1, 2) and "Traceback" not in done.stderr
    assert len(done.stderr.splitlines()) <= 1, done.stderr
    if done.returncode:
        assert "may only be read" in done.stderr


def test_a_stage_on_a_read_only_disk(root: Path) -> None:
    done = run(root, "adapt.stages.data")
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert done.stderr.splitlines()[-1].startswith("adapt data: ")
    assert READ_ONLY in done.stderr.splitlines()[-1]


@fault(
    "another process keeps the database of the tracking locked",
    keeps="all runs; a stage goes on, and its run is sent later",
    says=f"MLflow store sqlite:... cannot be used: {LOCKED} (...)",
    then="as ever, when the other process has ended",
)
def test_a_locked_database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def locked(*arguments: object, **options: object) -> None:
        raise of_sqlalchemy()

    monkeypatch.setattr("mlflow.MlflowClient.search_experiments", locked)
    with pytest.raises(InputError) as caught:
        opened(f"sqlite:///{tmp_path}/mlflow/mlflow.db")
    assert "is locked by another process; wait" in str(caught.value)
    assert "sqlalche.me" not in str(caught.value)


@fault(
    "a folder of the workspace belongs to somebody else",
    keeps="everything",
    says="promote: ...: this user may not; change the owner or the rights, or run as another user",
)
def test_a_folder_of_somebody_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(*arguments: object, **options: object) -> None:
        raise PermissionError(13, "Permission denied", str(tmp_path / "mlflow"))

    monkeypatch.setattr(Path, "mkdir", denied)
    with pytest.raises(InputError, match="this user may not; change the owner or the rights"):
        opened(f"sqlite:///{tmp_path}/mlflow/mlflow.db")
