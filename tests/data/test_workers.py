"""Work in processes: whatever happens to a worker or its parent, nothing hangs or stays."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from typing import Any

import psutil
import pytest

from adapt.data.workers import parts
from adapt.params import InputError
from tests.support.closure import ROOT
from tests.support.limits import STEP_S


def squares(piece: int) -> Iterator[int]:
    """Stands for work: of the numbers up to `piece`, their squares."""
    for number in range(piece):
        yield number**2


def dies(piece: int) -> Iterator[int]:
    """Stands for a worker without memory."""
    yield piece
    if piece == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    yield piece


def refuses(piece: int) -> Iterator[int]:
    """Stands for a file that cannot be read."""
    yield piece
    if piece == 2:
        raise InputError("rows.parquet: damaged")


def is_slow(piece: int) -> Iterator[int]:
    """Stands for a lot of work."""
    yield os.getpid()
    time.sleep(600)


@pytest.mark.parametrize("processes", [1, 2])
def test_each_piece_gives_its_parts_in_order(processes: int) -> None:
    found: dict[int, list[int]] = {}
    for number, part in parts(squares, iter([3, 0, 5, 1]), processes):
        found.setdefault(number, []).append(part)
    assert found == {0: [0, 1, 4], 2: [0, 1, 4, 9, 16], 3: [0]}


def test_a_worker_that_dies_is_one_line() -> None:
    with pytest.raises(InputError, match=r"^a worker process was killed by SIGKILL; .* memory"):
        list(parts(dies, range(8), 2))
    assert not _workers()


@pytest.mark.parametrize("processes", [1, 2])
def test_what_cannot_be_read_in_a_worker_is_said_here(processes: int) -> None:
    with pytest.raises(InputError, match=r"^rows\.parquet: damaged$"):
        list(parts(refuses, range(8), processes))
    assert not _workers()


def test_closing_the_loop_ends_the_workers() -> None:
    found = parts(is_slow, range(2), 2)
    _, worker = next(found)
    assert psutil.pid_exists(worker)
    found.close()
    assert not _workers()


def _workers() -> list[psutil.Process]:
    running = psutil.Process().children(recursive=True)
    # Another test of this process may have a retraining watched until the process ends.
    others = ("resource_tracker", "flows.reaper", "adapt.tracking")
    lines = {one: " ".join(one.cmdline()) for one in running}
    return [one for one, line in lines.items() if not any(name in line for name in others)]


PARENT = """
from adapt import environment
from adapt.data.workers import parts
from tests.data.test_workers import is_slow
if __name__ == "__main__":
    with environment.terminable():
        for _, worker in parts(is_slow, range(2), 2):
            print(worker, flush=True)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_parent_that_is_ended_takes_its_workers_along(number: signal.Signals) -> None:
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    options: dict[str, Any] = {"cwd": ROOT, "env": environment, "text": True}
    # A shell starts its background jobs with Ctrl-C ignored, and a child inherits that.
    options["preexec_fn"] = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    command = [sys.executable, "-c", PARENT]
    with subprocess.Popen(command, stdout=subprocess.PIPE, **options) as parent:
        assert parent.stdout is not None
        workers = [psutil.Process(int(parent.stdout.readline())) for _ in range(2)]
        parent.send_signal(number)
        parent.wait(STEP_S)
        _, alive = psutil.wait_procs(workers, timeout=STEP_S)
    assert not alive


FIRST = """
import os, signal
from adapt.data.workers import parts
from tests.data.test_workers import squares
if __name__ == "__main__":
    started = []
    def masked(*_):
        return signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, [])
    from multiprocessing import util
    spawn = util.spawnv_passfds
    def watched(path, args, fds):
        if any("spawn_main" in str(one) for one in args):
            started.append(masked())
        return spawn(path, args, fds)
    util.spawnv_passfds = watched
    list(parts(squares, range(4), 2))
    assert not masked()
    print(started)
"""


def test_also_the_first_worker_is_started_with_the_signal_held_back() -> None:
    done = subprocess.run(
        [sys.executable, "-c", FIRST],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=STEP_S,
    )
    assert done.stdout == "[True, True]\n", done.stderr
