"""Kept answers: bit by bit what was said, whatever cut the file off, and by what was asked."""

import dataclasses
import os
import time
from itertools import chain

import numpy as np
import pytest

from adapt.data import scenes
from adapt.data.schema import Turn
from adapt.generation.kept import DAYS, Kept, forget, question_key
from adapt.generation.said import Said

ROWS = list(scenes.examples("test", 0, size=32, caption_noise=0, seed=7))


def said(seed: int, maps: bool = True, length: int = 3) -> Said:
    rng = np.random.default_rng(seed)
    heats = [rng.random(16, np.float32), rng.random(4, np.float32)]
    tokens = {"position": np.arange(length), "mass": rng.random(length, np.float32)}
    by_token = [[rng.random(16, np.float32), rng.random(4, np.float32)] for _ in range(length)]
    return Said(
        text='a "red"\n car \u2603',
        length=length,
        heats=heats,
        grids=[[4, 4], [2, 2]],
        tokens=tokens,
        maps=by_token if maps else None,
        views=((4, 4), (2, 2)),
        sizes=((32, 32), (16, 8)),
    )


def same(one: Said, other: Said) -> None:
    for name in ("text", "length", "grids", "views", "sizes"):
        assert getattr(one, name) == getattr(other, name)
    assert (one.maps is None) == (other.maps is None)
    arrays = [[*of.heats, *of.tokens.values(), *chain(*(of.maps or []))] for of in (one, other)]
    for a, b in zip(*arrays, strict=True):
        assert a.dtype == b.dtype and a.tobytes() == b.tobytes()


def test_what_is_kept_comes_back_bit_by_bit(tmp_path):
    path = tmp_path / "answers" / "a.jsonl"
    Kept(path).add({"x": said(1), "y": said(2, maps=False)})
    Kept(path).add({"z": said(3, length=0)})
    found = Kept(path).read(["x", "z", "other"])
    assert set(found) == {"x", "z"}, "only what is wanted"
    same(found["x"], said(1))
    same(found["z"], said(3, length=0))
    same(Kept(path).read(["y"])["y"], said(2, maps=False))


@pytest.mark.parametrize("cut", [1, 5, 400])
def test_a_torn_line_is_cut_off_and_the_next_one_is_whole(tmp_path, cut):
    path = tmp_path / "a.jsonl"
    Kept(path).add({"x": said(1)})
    whole = path.stat().st_size
    Kept(path).add({"y": said(2)})
    os.truncate(path, path.stat().st_size - cut)
    assert set(Kept(path).read(["x", "y"])) == {"x"} and path.stat().st_size == whole
    Kept(path).add({"y": said(3)})
    same(Kept(path).read(["y"])["y"], said(3))


def test_nothing_is_kept_without_a_place(tmp_path):
    Kept(None).add({"x": said(1)})
    assert Kept(None).read(["x"]) == {} and Kept(tmp_path / "none.jsonl").read(["x"]) == {}


def test_a_question_is_known_by_what_it_asks():
    row = ROWS[0]
    key = question_key(row, True)
    assert key == question_key(dataclasses.replace(row, id="other", answer="else"), True)
    changes = {
        "question": row.question + " ",
        "images": (row.images[0] + b"\0",),
        "history": (Turn(question="a", answer="b"),),
    }
    others = {question_key(dataclasses.replace(row, **{k: v}), True) for k, v in changes.items()}
    others |= {question_key(row, False), question_key(row, True, 1)}
    assert len(others) == 5 and key not in others


def test_what_nobody_uses_is_forgotten(tmp_path):
    for name in ("old", "new"):
        Kept(tmp_path / f"{name}.jsonl").add({"x": said(1)})
    long_ago = time.time() - (DAYS + 1) * 24 * 3600
    os.utime(tmp_path / "old.jsonl", (long_ago, long_ago))
    os.utime(tmp_path / "new.jsonl", (long_ago, long_ago))
    Kept(tmp_path / "new.jsonl").read(["x"])
    forget(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["new.jsonl"]
