"""A local Ray: its sockets fit into what the kernel takes, however long the temporary folder is."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from adapt.cluster import local
from adapt.params import InputError
from tests.support.limits import COMMAND_S


def in_folder(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    monkeypatch.setattr(tempfile, "tempdir", str(folder))


def test_a_short_temporary_folder_is_rays_own_choice(monkeypatch, tmp_path):
    in_folder(monkeypatch, Path("/tmp"))
    with local.session_folder() as folder:
        assert folder is None


def test_a_long_one_gives_way_to_a_short_folder_that_does_not_stay(monkeypatch, tmp_path):
    in_folder(monkeypatch, tmp_path / ("job" * 20))
    before = os.environ.get("TMPDIR")
    with local.session_folder() as folder:
        assert folder is not None
        longest = f"{folder}/{local.SESSION}"
        assert len(longest) <= local.SOCKET_PATH and os.stat(folder).st_mode & 0o077 == 0
        assert Path(os.environ["TMPDIR"]) == Path(folder) / "tmp"
        assert os.readlink(Path(folder) / "tmp") == tempfile.gettempdir()
    assert not Path(folder).exists() and os.environ.get("TMPDIR") == before


def test_no_short_folder_is_one_line(monkeypatch, tmp_path):
    in_folder(monkeypatch, tmp_path / ("job" * 20))
    monkeypatch.setattr(local, "SHORT", tmp_path / "missing")
    with (
        pytest.raises(InputError, match=r"TMPDIR: .* too long .*; set it to at most \d+ char"),
        local.session_folder(),
    ):
        pass


def test_ray_starts_where_a_job_has_a_long_temporary_folder(tmp_path):
    folder = tmp_path / ("slurm_job_" * 6)
    folder.mkdir()
    code = "from adapt.cluster.local import ray_here\nwith ray_here(1):\n    print('ready')"
    environment = {**os.environ, "TMPDIR": str(folder)} | {"RAY_USAGE_STATS_ENABLED": "0"}
    environment.pop("RAY_TMPDIR", None)
    command = [sys.executable, "-c", code]
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=COMMAND_S
    )
    assert done.returncode == 0 and "ready" in done.stdout, done.stderr[-2000:]
