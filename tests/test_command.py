"""The edge of commands: what the machine refuses is one line, and no command is without an edge."""

import ast
import errno
import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
import sqlalchemy.exc
from mlflow.exceptions import MlflowException

from adapt import command
from adapt.command import ended, explained
from adapt.params import InputError
from tests.support.closure import ROOT
from tests.test_outside_texts import SOURCES

# Entry points without an edge of their own, and who has it instead.
ELSEWHERE = {
    "adapt/launch.py": "prints the schema of params.yaml; `launch` has the edge of the stages",
    "flows/serve/guard.py": "runs one command and returns its exit code",
    "flows/reaper.py": "ends processes of a retraining that is gone; nobody reads what it says",
}


def test_every_command_has_an_edge() -> None:
    commands = [name for name, tree in SOURCES.items() if "__main__" in names_of(tree)]
    assert len(commands) > 15
    for name in commands:
        source = (ROOT / name).read_text()
        is_stage = name.startswith("adapt/stages/") and f'launch("{Path(name).stem}")' in source
        has_edge = "command.ended(" in source
        assert has_edge or is_stage or name in ELSEWHERE, f"{name}: put main into command.ended"


def names_of(tree: ast.AST) -> set[str]:
    tests = [node.test for node in ast.walk(tree) if isinstance(node, ast.If)]
    compared = [one.comparators[0] for one in tests if isinstance(one, ast.Compare)]
    return {one.value for one in compared if isinstance(one, ast.Constant)}


def of_sqlalchemy() -> Exception:
    """As MLflow raises it: an error of SQLite in one of SQLAlchemy's, in one of its own."""
    locked = sqlite3.OperationalError("database is locked")
    try:
        raise sqlalchemy.exc.OperationalError("INSERT INTO t VALUES (?)", {"a": "x"}, locked)
    except sqlalchemy.exc.OperationalError as error:
        try:
            raise MlflowException(error)
        except MlflowException as outer:
            return outer


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (OSError(errno.ENOSPC, "x", "/a"), "/a: the disk is full; make room and run"),
        (OSError(errno.EDQUOT, "x", "/a"), "/a: your share of the disk is used up"),
        (OSError(errno.EFBIG, "x", "/a"), "/a: larger than a file may be here"),
        (OSError(errno.EROFS, "x", "/a"), "/a: the disk may only be read; mount it for writing"),
        (OSError(errno.EACCES, "x", "/a"), "/a: this user may not; change the owner"),
        (OSError(errno.EMFILE, "x", "/a"), "open files; raise the limit (`ulimit -n`)"),
        (OSError(errno.EIO, "x", "/a"), "/a: the disk or a file on it is damaged"),
        (OSError(errno.ENOENT, "x", b"/a\x1b[2J\xff"), "/a\\x1b[2J\\udcff: not found"),
        (OSError(errno.EISDIR, "x", "/a"), "/a: is a directory"),
        (OSError(errno.ENOSPC, "x"), "the disk is full"),
        (MemoryError(), "the memory is full"),
        (sqlite3.OperationalError("database is locked"), "is locked by another process; wait"),
        (sqlite3.OperationalError("database or disk is full"), "the disk is full"),
        (sqlite3.OperationalError("attempt to write a readonly database"), "may only be read"),
        (sqlite3.OperationalError("unable to open database file"), "cannot be opened"),
        (sqlite3.DatabaseError("database disk image is malformed"), "damaged"),
        (sqlite3.DatabaseError("file is not a database"), "damaged"),
        (of_sqlalchemy(), "(sqlite3.OperationalError) database is locked)"),
        (RuntimeError("I/O error: No space left on device (os error 28)"), "the disk is full"),
        (RuntimeError("PytorchStreamWriter failed writing file data/3"), "the disk is full"),
        (InputError("a.yaml: b"), "a.yaml: b"),
    ],
)
def test_what_the_machine_refuses_is_said_with_what_to_do(error: Exception, says: str) -> None:
    line = explained(error)
    assert line is not None and says in line and line.isprintable()
    assert "sqlalche.me" not in line and "INSERT" not in line


@pytest.mark.parametrize(
    "error",
    [
        *(KeyError("disk is full"), AssertionError("database is locked"), IndexError("x")),
        *(TypeError("x"), ValueError("x"), OSError("x"), RuntimeError("CUDA error")),
    ],
)
def test_what_is_ours_keeps_its_traceback(error: Exception) -> None:
    assert explained(error) is None

    def work() -> int:
        raise error

    with pytest.raises(type(error)):
        ended("x", work)


def test_an_error_of_ours_within_another_is_not_explained_away() -> None:
    try:
        raise OSError(errno.ENOSPC, "x")
    except OSError:
        try:
            raise KeyError("ours")
        except KeyError as error:
            assert explained(error) is None


def test_endings(capsys: pytest.CaptureFixture[str]) -> None:
    def raising(error: BaseException) -> int:
        raise error

    assert ended("x", lambda: None) == 0 and ended("x", lambda: 1) == 1
    assert capsys.readouterr() == ("", "")
    text = "http://me:p/w@host\n\x1b[2Jx"
    assert ended("x", lambda: raising(InputError(text))) == 2
    assert capsys.readouterr() == ("", "x: http://host \\x1b[2Jx\n")
    assert ended("x", lambda: raising(InputError(text)), in_json=True) == 2
    assert capsys.readouterr() == ('{"error": "http://host \\\\x1b[2Jx"}\n', "")
    assert ended("x", lambda: raising(OSError(errno.ENOSPC, "", "/a"))) == 2
    assert capsys.readouterr().err == f"x: /a: {command.FULL}\n"
    assert ended("x", lambda: raising(KeyboardInterrupt())) == 130
    assert capsys.readouterr().err == "x: stopped\n"
    assert ended("x", lambda: raising(InputError("a" * 9000)), longest=100) == 2
    assert len(capsys.readouterr().err) < 110
    with pytest.raises(SystemExit, match="143"):
        ended("x", lambda: raising(SystemExit(143)))


CODE = "import sys; from adapt import command; sys.exit(command.ended('x', lambda: print('a' * 9)))"

STAGE = "from adapt import command\nwith command.edge('x'): print('a' * 9)"


def run(stdout: int, code: str = CODE) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    words = [sys.executable, "-c", code]
    return subprocess.run(words, stdout=stdout, stderr=-1, text=True, env=environment)


def test_a_reader_that_leaves_early_is_no_error() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    done = run(writing)
    os.close(writing)
    assert (done.returncode, done.stderr) == (0, "")


def test_another_pipe_that_breaks_is_an_error() -> None:
    def work() -> None:
        raise BrokenPipeError(errno.EPIPE, "Broken pipe")

    with pytest.raises(BrokenPipeError):
        ended("x", work)


def test_a_stage_that_nobody_reads_does_not_count_as_done() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    done = run(writing, STAGE)
    os.close(writing)
    assert (done.returncode, done.stderr) == (130, "")


def test_output_to_a_full_disk_is_one_line() -> None:
    full = os.open("/dev/full", os.O_WRONLY)
    done = run(full)
    os.close(full)
    assert (done.returncode, done.stderr) == (2, f"x: {command.FULL}\n")
