"""Outcomes of rows come back as they were put; what is too much goes, oldest first."""

import dataclasses
import sqlite3
import time

import pytest

from adapt.attention.support import SIDE
from adapt.pairs.annotate import Annotation, Answers, Found, LeftOut
from adapt.pairs.kept import kept, row_key
from adapt.pairs.table import PairView
from adapt.params import InputError
from tests.support.preferences import preference

WHERE = Annotation(
    anchor=(0.5, 0.0, 0.5),
    views=(PairView(image=0, kind="whole", rows=1, columns=2),),
    support=(bytes(SIDE**2), bytes([7]) * SIDE**2),
)
SAID = Answers(chosen="a car", rejected="a bus", chosen_score=1.0, rejected_score=None)
BEGUN = dataclasses.replace(SAID, prefix="a ")
FOUND = {
    **{
        b"a": Found(annotation=WHERE),
        b"b": Found(annotation=WHERE, answers=SAID),
        b"c": LeftOut("min_gap"),
    },
    b"e": Found(annotation=WHERE, answers=BEGUN),
}


def test_what_is_put_comes_back(tmp_path):
    with kept(tmp_path) as store:
        store.put(FOUND)
    with kept(tmp_path) as store:
        assert store.known([*FOUND, b"d", b"a"]) == {*FOUND}
        assert {key: store.get(key) for key in FOUND} == FOUND


def test_the_oldest_go_and_a_run_keeps_its_own(tmp_path):
    for key in (b"old", b"older"):
        with kept(tmp_path) as store:
            store.put({key: FOUND[b"a"]})
            time.sleep(0.01)
    with kept(tmp_path) as store:
        store.put({b"new": FOUND[b"a"]})
        assert store.known([b"old"]) == {b"old"}  # and is in use again
        store.trim(most=1)
        assert store.known([b"old", b"older", b"new"]) == {b"old", b"new"}


def test_a_damaged_file_is_begun_anew_or_named(tmp_path):
    path = tmp_path / "found.sqlite"
    path.write_text("no database at all, although it is long enough to have a header" * 20)
    with kept(tmp_path) as store:
        assert store.known([b"a"]) == set()
        store.put(FOUND)
    with (
        pytest.raises(InputError, match=r"found\.sqlite: .* the file may be deleted"),
        kept(tmp_path),
    ):
        raise sqlite3.DatabaseError("malformed")


def test_whatever_an_outcome_depends_on_changes_its_key():
    names, row = ("question", "history", "chosen"), preference(0)
    key = row_key(b"base", row, names)
    assert key == row_key(b"base", preference(0, rejected="else", id="else"), names)
    assert key != row_key(b"other", row, names)
    for changes in (
        {"chosen": "else"},
        {"images": preference(1).images},
        {"images": row.images * 2},
    ):
        assert key != row_key(b"base", preference(0, **changes), names)
