"""A local Ray: out of others' reach, and gone with its process however that ends."""

import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from adapt.cluster import local
from tests.support import limits
from tests.support.faults import fault
from tests.support.ray_head import without_ray

pytestmark = pytest.mark.slow

SCRIPT = """
import os, signal, socket, sys, time
from pathlib import Path
import psutil
from adapt import environment
environment.prepare(Path.cwd())
from adapt.cluster.local import MARK, ray_here
import ray.train.v2._internal.constants  # reads variables that are not set yet

with environment.terminable(), ray_here(1):
    ray.get(ray.remote(lambda: 1).remote())
    me = psutil.Process()
    for process in [me, *me.children(recursive=True)]:
        for one in process.net_connections(kind="inet"):
            if one.status == psutil.CONN_LISTEN:
                print("listens", one.laddr.ip, process.name(), flush=True)
    print("folder", os.environ[MARK], flush=True)
    from adapt.cluster import waiting
    from adapt.params import InputError
    waiting.LOOK_S, waiting.QUIET_S = 0.1, 0.2
    group = ray.util.placement_group([{"CPU": 1}] * 2 + [{"CPU": 1, "GPU": 1}])
    try:
        waiting.followed(lambda: ray.get(group.ready()), 0.02)
    except InputError as error:
        print("gave up:", error, flush=True)
    ray.util.remove_placement_group(group)
    assert waiting.followed(lambda: "done", 1.0) == "done" and waiting.wanted() == {}
    print("home", (Path.home() / ".ray" / "auth_token").exists(), flush=True)
    sys.stdin.read()
"""
LOOPBACK = {"127.0.0.1", "::1", "::ffff:127.0.0.1"}


def started(tmp_path: Path) -> tuple[subprocess.Popen[str], list[str]]:
    """A process with a local Ray, in a folder with a long name, and what it says of that."""
    long = tmp_path / ("slurm_job_" * 6)
    long.mkdir()
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT],
        env=without_ray(TMPDIR=str(long), HOME=str(tmp_path), ADAPT_CPUS="1"),
        cwd=tmp_path,
        text=True,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=(tmp_path / "err").open("w"),
        start_new_session=True,
    )
    lines: list[str] = []
    while not lines or not lines[-1].startswith("home"):
        line = process.stdout.readline()
        assert line, f"the Ray did not start, exit code {process.wait()}: {lines}"
        lines.append(line.strip())
    return process, lines


def marked(folder: str) -> list[str]:
    """Processes of the Ray whose folder this is."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(local.MARK) == folder:
                found.append(" ".join(process.cmdline()))
        except (psutil.Error, OSError):
            continue
    return found


@fault(
    "A process with a local Ray is killed where TMPDIR is too long for Ray",
    keeps="nothing runs on: neither Ray's processes nor its folder are there 30 s later",
    then="starts a Ray of its own",
)
def test_a_local_ray_is_private_and_ends_with_its_process(tmp_path):
    process, lines = started(tmp_path)
    folder = next(line.split()[1] for line in lines if line.startswith("folder"))
    listens = [line.split()[1:] for line in lines if line.startswith("listens")]
    assert len(listens) >= 8 and {place for place, *_ in listens} <= LOOPBACK, listens
    assert Path(folder).stat().st_mode & 0o077 == 0
    assert lines[-1] == "home False", "no token in the home folder"
    said = (tmp_path / "err").read_text()
    assert "train: waiting for 3 CPU and 1 GPU since 0 s\n" in said
    (problem,) = [line for line in lines if line.startswith("gave up")]
    assert "train.wait_minutes: no node has had 3 CPU and 1 GPU for the workers in" in problem
    process.kill()
    assert process.wait(limits.STEP_S) == -signal.SIGKILL
    limits.until(lambda: not marked(folder), "end of Ray's processes", limits.ORPHANS_S)
    limits.until(lambda: not Path(folder).exists(), "removal of Ray's folder", limits.ORPHANS_S)
    process.stdin.close()
    process.stdout.close()
