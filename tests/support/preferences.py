"""Preference rows about pictures of noise, and a workspace that has them in its splits."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from adapt.data.schema import Example, Preference, SceneObject, Vocabulary, write_vocabulary
from adapt.data.tables import write_split
from adapt.models.load import save
from adapt.pairs.settings import PairsConfig
from adapt.params import load
from tests.support import tiny_world
from tests.support.preference_rows import ANCHOR, png

WORDS = Vocabulary(
    objects={word: (word,) for word in ("house", "tree", "car", "picture")},
    colours=("red", "green", "blue"),
)
SETTINGS = {
    **{"source": "auto", "limit": 0, "images": 100, "skip": 0, "kinds": ["describe"], "samples": 4},
    **{
        "temperature": 1.0,
        "min_gap": 1e-3,
        "unit": "answer",
        "chosen": "any",
        "min_best": "any",
        "likelihood": "any",
        "repeats": "keep",
        "batch": 3,
        "actors": 0,
        "actor_cpus": 1,
    },
    "keep": {"kinds": ["exists", "colour"], "images": 0, "path": ""},
}
SHARED = {"anchor": ANCHOR, "device": "cpu", "max_new_tokens": 6, "seed": 1}


def config(**changes: Any) -> PairsConfig:
    return load({"pairs": SETTINGS | changes, **SHARED}, "pairs", PairsConfig)


def preference(number: int, **changes: Any) -> Preference:
    """A row about a picture of its own, of which nothing else is known."""
    row = Preference(
        id=f"row-{number}",
        image_id=str(number),
        images=(png(tiny_world.picture(number)),),
        kind="other",
        history=(),
        question=tiny_world.QUESTIONS[number % 2],
        chosen=tiny_world.ANSWERS[number % 2],
        rejected=tiny_world.ANSWERS[(number + 1) % 2],
        rejected_images=(),
        chosen_score=None,
        rejected_score=None,
        objects=None,
        absent=None,
    )
    return dataclasses.replace(row, **changes)


def known(number: int, **changes: Any) -> Preference:
    """A row of which it is known what is there: it can be sampled, too."""
    house = SceneObject(name="house", colour="", box=None)
    facts = {"kind": "describe", "question": tiny_world.QUESTIONS[0], "objects": (house,)}
    return preference(number, **facts, absent=(), **changes)


def workspace(root: Path, rows: Sequence[Preference] | Sequence[Example]) -> Path:
    """The results folder of stages `data` and `base`, as far as stage `pairs` reads it."""
    results = root / "results"
    splits = results / "data" / "splits"
    splits.mkdir(parents=True, exist_ok=True)
    write_split(splits / "train.parquet", rows)
    write_vocabulary(splits / "vocabulary.json", WORDS)
    if not (results / "base").exists():
        save(tiny_world.model(), tiny_world.processor(), results / "base" / "model")
    return results
