"""Marks tell a process that moves the alias, or died then, from a person; races are sent again."""

import json
import os
import subprocess
import sys
import time
from dataclasses import asdict, replace

import pytest
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import BAD_REQUEST, INTERNAL_ERROR, RESOURCE_DOES_NOT_EXIST

from adapt import environment
from adapt.registry.marks import KEY, LASTS_S, Mark, read
from adapt.tracking import races
from adapt.tracking.races import again

OURS = Mark(
    versions=("2", "3"),
    at=time.time(),
    machine=environment.machine(),
    process=os.getpid(),
    began=environment.began(os.getpid()) or 0,
)


def test_a_mark_survives_the_registry() -> None:
    assert read({f"{KEY}1": json.dumps(asdict(OURS)), "owner": "Kim"}) == {f"{KEY}1": OURS}


@pytest.mark.parametrize("text", ["", "[]", "3", "{", '{"versions": 3}', '{"versions": ["2"]}'])
def test_what_is_no_mark_explains_nothing_and_is_taken_away(text: str) -> None:
    mark = Mark.parsed(text)
    assert mark.versions == () and mark.is_dead


def test_a_mark_is_dead_when_its_process_is() -> None:
    assert not OURS.is_dead
    assert replace(OURS, began=OURS.began - 1).is_dead  # the number is another process's now
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    assert replace(OURS, process=ended.pid).is_dead
    assert replace(OURS, process=2**62).is_dead


def test_a_mark_of_another_machine_lasts_a_while() -> None:
    other = replace(OURS, machine="elsewhere", process=2**30, at=time.time())
    assert not other.is_dead
    assert replace(other, at=other.at - LASTS_S - 1).is_dead


def failing(times: int, message: str, code: int) -> list[object]:
    """What a write does: it fails some times, and then returns."""
    return [*[MlflowException(message, code)] * times, "written"]


@pytest.mark.parametrize(
    ("message", "code"),
    [
        ("UNIQUE constraint failed: model_version_tags.key", BAD_REQUEST),
        ("Model Version creation error (name=m). Giving up after 3 attempts.", INTERNAL_ERROR),
        ("(sqlite3.OperationalError) database is locked", INTERNAL_ERROR),
    ],
)
def test_a_write_that_others_were_in_the_way_of_is_sent_again(
    monkeypatch: pytest.MonkeyPatch, message: str, code: int
) -> None:
    monkeypatch.setattr(races, "WAIT_S", 0.0)
    outcomes = failing(3, message, code)

    def write(*words: object) -> object:
        outcome = outcomes.pop(0)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome, *words

    assert again(write, 1) == ("written", 1)
    outcomes[:] = failing(races.TRIES, message, code)
    with pytest.raises(MlflowException):
        again(write)
    assert outcomes == ["written"]


def test_an_answer_and_a_server_that_is_away_are_not_asked_again() -> None:
    for code, message in ((RESOURCE_DOES_NOT_EXIST, "no such model"), (INTERNAL_ERROR, "refused")):
        calls: list[int] = []

        def write(calls: list[int] = calls, message: str = message, code: int = code) -> None:
            calls.append(1)
            raise MlflowException(message, code)

        with pytest.raises(MlflowException):
            again(write)
        assert calls == [1]
