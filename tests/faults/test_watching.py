"""What can happen to the log of a served model: no answer waits, and it says what it lacks."""

import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from adapt.watching import recorder
from adapt.watching.log import Log
from adapt.watching.recorder import Recorder
from tests.support import disks, limits, logged
from tests.support.closure import ROOT
from tests.support.faults import fault

SERVER = """
import sys, time
from pathlib import Path
from adapt.watching import recorder
from tests.support import logged
recorder.FLUSH_S = 0.2
one = recorder.Recorder(logged.CONFIG, Path(sys.argv[1]))
for number, said in enumerate(logged.answers(100_000)):
    one.record(said)
    print(number, flush=True)
    time.sleep(0.01)
"""


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recorder, "FLUSH_S", 0.05)


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [one.getMessage() for one in caplog.records if one.name == recorder.__name__]


@fault(
    "the disk of the log of a served model fills up, and has room again",
    keeps="every answer that is given, and in the log those of before and after",
    says="watch: /data: No space left on device; answers go on, and some may not be recorded",
    then="is recorded again without a restart; a line says how many answers were not",
)
def test_a_disk_that_is_full(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recorder, "MOST", 20)
    with disks.disk(tmp_path / "disk", "2m") as disk:
        one = Recorder(logged.config(log=str(disk / "served")), tmp_path)
        said = list(logged.answers(120))
        for answer in said[:10]:
            one.record(answer)
        log = Log(str(disk / "served"))
        limits.until(lambda: len(log.read("signals").rows) == 10, "first answers")
        disks.fill(disk)
        began = time.monotonic()
        for answer in said[10:110]:
            one.record(answer)
        assert time.monotonic() - began < limits.STEP_S
        limits.until(lambda: lines(caplog), "line about the disk")
        (disk / "filling").unlink()
        limits.until(lambda: len(lines(caplog)) == 2, "line about its end")
        one.record(said[110])
        one.close(limits.STEP_S)
        full, again = lines(caplog)
        assert "No space left on device; answers go on" in full and "\n" not in full
        assert again == "watch: recording again; 80 answers were not recorded"
        rows = log.read("signals").rows
        assert len(rows) == 31 and not log.read("signals").left_out


@fault(
    "the storage of the log is away",
    keeps="every answer that is given; the log's latest answers wait in memory, up to a bound",
    says="watch: s3://bucket/served: ...; answers go on, and some may not be recorded",
    then="what waits is written when the storage is back",
)
def test_a_storage_that_is_away(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, away = Log.write, [True]

    def refusing(self: Log, *words: object) -> str:
        if away[0]:
            raise ConnectionError("could not reach s3://me:hunter2@bucket")
        return write(self, *words)  # type: ignore[arg-type]

    monkeypatch.setattr(Log, "write", refusing)
    caplog.set_level(logging.WARNING)
    one = Recorder(logged.CONFIG, tmp_path)
    for answer in logged.answers(5):
        one.record(answer)
    limits.until(lambda: lines(caplog), "line about the storage")
    time.sleep(0.3)  # it is tried again, and not told again
    assert len(lines(caplog)) == 1 and "hunter2" not in caplog.text
    away[0] = False
    one.close(limits.STEP_S)
    assert len(Log(str(tmp_path / "log")).read("signals").rows) == 5
    assert lines(caplog)[1] == "watch: recording again; 0 answers were not recorded"


@fault(
    "the server is killed while it logs",
    keeps="the log but for its last seconds; no file in it is half-written",
    then="goes on with files of its own",
)
def test_a_server_that_is_killed(tmp_path: Path) -> None:
    command = [sys.executable, "-c", SERVER, str(tmp_path)]
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True) as server:
        try:
            log = Log(str(tmp_path / "log"))
            limits.until(lambda: len(log.read("signals").rows) > 50, "answers in the log")
        finally:
            server.send_signal(signal.SIGKILL)
            said = server.communicate()[0].splitlines()
    found = log.read("signals")
    assert not found.left_out
    # In order, without a gap, and at most what a moment of flushing holds is missing.
    numbers = [int(identity.removeprefix("answer-")) for identity in found.rows.id]
    assert numbers == list(range(len(numbers)))
    assert 50 < len(numbers) <= len(said) + 1
    logged.write(logged.CONFIG, tmp_path, logged.answers(3, time=logged.START + 90_000))
    assert len(log.read("signals").rows) == len(numbers) + 3


@fault(
    "somebody else puts a file into the log, or damages one",
    keeps="what the other files hold",
    says="served/signals/.../05-0123abcd-00001.parquet: left out: ...",
    then="the watch says so with every look, until it is deleted",
)
def test_a_strange_file(tmp_path: Path) -> None:
    logged.write(logged.CONFIG, tmp_path, logged.answers(3))
    (path,) = (tmp_path / "log").rglob("*.parquet")
    content = path.read_bytes()
    for number, damage in enumerate((b"", content[:100], content[:-20], b"\x00" * 500)):
        path.with_name(f"05-0123abcd-{number:05d}.parquet").write_bytes(damage)
    found = Log(str(tmp_path / "log")).read("signals")
    assert len(found.rows) == 3 and len(found.left_out) == 4
    assert all(one.isprintable() and len(one) < 700 for one in found.left_out)
