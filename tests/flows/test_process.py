"""Child processes: lines as they come, nothing left of what is timed out, interrupted or fails."""

import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest

from flows.process import Lines, alive, child_environment, end, stream


def run(script: str, tmp_path: Path, **how: Any) -> tuple[int, list[str], list[str]]:
    seen: list[str] = []
    code, last = stream(
        ["bash", "-c", script], cwd=tmp_path, env=child_environment({}), emit=seen.append, **how
    )
    return code, last, seen


def test_lines_of_both_streams_come_in_order(tmp_path: Path) -> None:
    code, last, seen = run("echo one; echo two >&2; printf 'no newline'; exit 3", tmp_path)
    assert (code, last) == (3, ["one", "two", "no newline"])
    assert seen == last


def test_a_line_arrives_before_the_process_ends(tmp_path: Path) -> None:
    arrived: list[float] = []
    started = time.monotonic()
    stream(
        ["bash", "-c", "echo early; sleep 2"],
        cwd=tmp_path,
        env=child_environment({}),
        emit=lambda _: arrived.append(time.monotonic() - started),
    )
    assert arrived[0] < 1.5 <= time.monotonic() - started


def test_characters_cut_in_half_and_windows_line_ends() -> None:
    lines = Lines(every=60)
    assert list(lines.feed(b"gr\xc3")) == []
    assert list(lines.feed(b"\xbcn\r")) == []  # the carriage return may still belong to a line end
    assert list(lines.feed(b"\nnext\n")) == ["grün", "next"]


def test_a_progress_bar_is_shown_at_a_sane_rate() -> None:
    now = [0.0]
    lines = Lines(every=20, clock=lambda: now[0])
    shown: list[str] = []
    for step in range(101):  # a bar that is redrawn every second
        now[0] = step
        shown += lines.feed(f"\r{step}%".encode())
    shown += lines.feed(b"\n")
    # A drawing is complete when the next begins, at 1, 21, 41 ... seconds; the last one ends its
    # line.
    assert shown == ["0%", "20%", "40%", "60%", "80%", "100%"]


def test_a_slow_bar_is_shown_while_it_waits() -> None:
    lines = Lines(every=2, clock=lambda: 100.0)
    assert list(lines.feed(b"loading\n\r 7% of a slow thing")) == ["loading"]
    assert list(lines.idle()) == [" 7% of a slow thing"]
    assert list(lines.idle()) == []


def test_an_exception_ends_grandchildren(tmp_path: Path) -> None:
    """As Prefect's time limit does: SIGALRM in the main thread, whose handler raises."""

    def stop(*_: object) -> None:
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, 1.0)
    try:
        with pytest.raises(TimeoutError):
            # One grandchild in the group, one that has left it, as Ray's daemons do.
            group = "echo $$ > leader; sleep 97 & echo $! > same"
            script = f"{group}; setsid sleep 98 & echo $! > other; wait"
            run(script, tmp_path, ending=partial(end, grace=3))
    finally:
        signal.signal(signal.SIGALRM, before)
    assert [(name, psutil_alive(tmp_path / name)) for name in ("leader", "same", "other")] == [
        ("leader", False),
        ("same", False),
        ("other", False),
    ]


def test_what_ignores_sigterm_is_killed(tmp_path: Path) -> None:
    ignoring = "import signal, time; signal.signal(15, signal.SIG_IGN)"
    stubborn = f"{ignoring}; print(1, flush=True); time.sleep(60)"
    child = subprocess.Popen(
        [sys.executable, "-c", stubborn], stdout=subprocess.PIPE, start_new_session=True
    )
    assert child.stdout is not None
    child.stdout.readline()
    end(child.pid, grace=0.5)
    assert child.wait(1) == -signal.SIGKILL
    child.stdout.close()


def test_a_finished_command_leaves_no_background_process(tmp_path: Path) -> None:
    code, _, _ = run("sleep 96 >/dev/null 2>&1 & echo $! > left", tmp_path)
    assert code == 0
    assert not psutil_alive(tmp_path / "left")


def test_closing_the_output_is_not_the_end(tmp_path: Path) -> None:
    before = time.process_time()
    code, _, _ = run("exec >&- 2>&-; sleep 1; exit 4", tmp_path)
    assert code == 4
    assert time.process_time() - before < 0.5  # waited, not span


def test_python_is_this_interpreter(tmp_path: Path) -> None:
    _, last, _ = run("python -c 'import sys; print(sys.prefix)'", tmp_path)
    assert last == [sys.prefix]


def psutil_alive(pid_file: Path) -> bool:
    pid = int(pid_file.read_text())
    assert pid != os.getpid()
    return psutil.pid_exists(pid) and alive(psutil.Process(pid))
