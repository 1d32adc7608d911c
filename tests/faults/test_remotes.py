"""A file that was changed on a DVC remote: refused, and pulled when it is right again."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from flows import remotes
from tests.support import workspace
from tests.support.faults import fault


def dvc(root: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "dvc", *words],
        cwd=root,
        env=workspace.environment(root),
        capture_output=True,
        text=True,
    )


@pytest.fixture
def pushed(tmp_path: Path) -> tuple[Path, Path]:
    """A workspace whose data is on a remote only, and the file of that remote."""
    root, remote = tmp_path / "root", tmp_path / "remote"
    (root / ".dvc").mkdir(parents=True)
    config = (
        f"[core]\n    no_scm = true\n    remote = store\n['remote \"store\"']\n    url = {remote}\n"
    )
    (root / ".dvc" / "config").write_text(config)
    (root / "rows.csv").write_text("id,answer\n1,a dog\n")
    dvc(root, "add", "rows.csv")
    assert not dvc(root, "push").returncode
    (root / "rows.csv").unlink()
    for path in (root / ".dvc" / "cache").rglob("*"):
        path.chmod(0o700)
    shutil.rmtree(root / ".dvc" / "cache")
    (file,) = [path for path in remote.rglob("*") if path.is_file()]
    return root, file


@fault(
    "a byte of a file on the DVC remote flips",
    keeps="the workspace: nothing false gets in",
    says="failed to pull data from the cloud - Checkout failed for following targets: rows.csv",
    then="`dvc pull` works once the remote has the file again (`dvc push` from where it is)",
)
def test_a_flipped_byte_is_refused(pushed: tuple[Path, Path]) -> None:
    root, file = pushed
    right = file.read_bytes()
    file.chmod(0o600)
    file.write_bytes(bytes([right[0] ^ 1]) + right[1:])
    said = "remote store: what is pulled is verified from now on (.dvc/config.local)"
    assert remotes.verify(root) == [said]
    assert remotes.verify(root) == []
    done = dvc(root, "pull")
    assert done.returncode and "Checkout failed for following targets:\nrows.csv" in done.stderr
    assert not (root / "rows.csv").exists()
    file.write_bytes(right)
    assert not dvc(root, "pull").returncode
    assert (root / "rows.csv").read_bytes() == right


def test_only_remotes_that_say_nothing_are_set(tmp_path: Path) -> None:
    folder = tmp_path / ".dvc"
    folder.mkdir()
    assert remotes.silent(tmp_path) == []
    (folder / "config").write_text(
        "[core]\n    remote = a\n"
        "['remote \"a\"']\n    url = /a\n"
        "['remote \"b c\"']\n    url = s3://b/%(x)s\n"
        "['remote \"fast\"']\n    url = /fast\n    verify = false\n"
    )
    assert remotes.silent(tmp_path) == ["a", "b c"]
    (folder / "config.local").write_text("['remote \"a\"']\n    verify = true\n")
    assert remotes.silent(tmp_path) == ["b c"]
    (folder / "config").write_text("no configuration")
    assert remotes.silent(tmp_path) == []
