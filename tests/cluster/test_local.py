"""A local Ray: its sockets fit into what the kernel takes, however long the temporary folder is."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from adapt import files
from adapt.cluster import local
from adapt.files import held
from adapt.params import InputError


def in_folder(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    monkeypatch.setattr(tempfile, "tempdir", str(folder))


def test_a_short_temporary_folder_has_a_private_one_that_does_not_stay(monkeypatch):
    in_folder(monkeypatch, Path("/tmp"))
    before = dict(os.environ)
    with local.session_folder() as folder:
        assert folder.parent == Path("/tmp") and folder.stat().st_mode & 0o077 == 0
        assert os.environ == before
    assert not folder.exists()


def test_a_long_one_gives_way_to_a_short_folder_that_does_not_stay(monkeypatch, tmp_path):
    in_folder(monkeypatch, tmp_path / ("job" * 20))
    before = os.environ.get("TMPDIR")
    with local.session_folder() as folder:
        longest = f"{folder}/{local.SESSION}"
        assert len(longest) <= local.SOCKET_PATH and folder.stat().st_mode & 0o077 == 0
        assert Path(os.environ["TMPDIR"]) == folder / "tmp"
        assert os.readlink(folder / "tmp") == tempfile.gettempdir()
    assert not folder.exists() and os.environ.get("TMPDIR") == before


def test_folders_of_killed_processes_go_and_those_of_living_ones_stay(monkeypatch, tmp_path):
    dead, young = tmp_path / "adapt-ray-dead", tmp_path / "adapt-ray-young"
    for folder in (dead, young):
        folder.mkdir()
    os.utime(dead, (0, 0))
    with held_folder(tmp_path / "adapt-ray-held"):
        files.sweep_folders(tmp_path, local.PREFIX)
        assert sorted(path.name for path in tmp_path.iterdir()) == [
            "adapt-ray-held",
            "adapt-ray-young",
        ]


@contextmanager
def held_folder(folder: Path) -> Iterator[None]:
    folder.mkdir()
    os.utime(folder, (0, 0))
    with held(folder):
        yield


def test_no_short_folder_is_one_line(monkeypatch, tmp_path):
    in_folder(monkeypatch, tmp_path / ("job" * 20))
    monkeypatch.setattr(local, "SHORT", tmp_path / "missing")
    with (
        pytest.raises(InputError, match=r"TMPDIR: .* too long .*; set it to at most \d+ char"),
        local.session_folder(),
    ):
        pass


def test_rays_token_in_the_home_folder_is_its_owners(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert not local.close_token_file().exists()
    (tmp_path / ".ray").mkdir()
    (tmp_path / ".ray/auth_token").write_text("secret")
    (tmp_path / ".ray/auth_token").chmod(0o644)
    assert local.close_token_file().stat().st_mode & 0o777 == 0o600


def test_a_folder_that_goes_while_it_is_looked_at_is_no_error(monkeypatch, tmp_path):
    (tmp_path / f"{local.PREFIX}left").mkdir()
    os.utime(tmp_path / f"{local.PREFIX}left", (0, 0))
    gone = [tmp_path / f"{local.PREFIX}{name}" for name in ("gone", "left")]
    monkeypatch.setattr(Path, "glob", lambda *_: iter(gone))
    files.sweep_folders(tmp_path, local.PREFIX)
    assert not gone[1].exists()
