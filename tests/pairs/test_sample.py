"""Pairs of every family's own answers, from pictures of several sizes and two in a prompt."""

import dataclasses
from functools import cache

import numpy as np
import pytest

from adapt.attention.layout import layout_of
from adapt.attention.places import places_of
from adapt.attention.support import support_maps
from adapt.data.pictures import open_picture
from adapt.data.schema import Example, SceneObject, Vocabulary
from adapt.generation.debias import Debias
from adapt.metrics.mentions import find
from adapt.models.prompts import encode, prompt_version
from adapt.pairs.annotate import Found, sampled_pair
from adapt.pairs.sample import Sampler
from adapt.pairs.settings import PairsConfig
from adapt.pairs.table import Origin, Pair, read_pairs, write_pairs
from adapt.params import load
from adapt.preference.survey import check_rows
from tests.support.families import CASES, QUESTIONS, built, mixed
from tests.support.preference_rows import ANCHOR, png

WORDS = Vocabulary(
    objects={word: (word,) for word in ("house", "tree", "car", "picture")},
    colours=("red", "green", "blue"),
)
SETTINGS = {
    "source": "auto",
    "limit": 0,
    "images": 3,
    "skip": 0,
    "kinds": ["describe"],
    "samples": 6,
    "temperature": 1.0,
}
SETTINGS |= {
    "min_gap": 1e-3,
    "unit": "answer",
    "chosen": "any",
    "min_best": "any",
    "likelihood": "any",
    "repeats": "keep",
    "batch": 2,
    "actors": 0,
    "actor_cpus": 1,
    "keep": {"kinds": ["exists"], "images": 0, "path": ""},
}
SHARED = {"anchor": ANCHOR, "device": "cpu", "max_new_tokens": 6, "seed": 1}


def config(**changes: object) -> PairsConfig:
    return load({"pairs": SETTINGS | changes, **SHARED}, "pairs", PairsConfig)


def examples(name: str) -> list[Example]:
    """Pictures of three sizes, two in one prompt; what is there is what may be said."""
    box = (0.1, 0.1, 0.3, 0.3)
    objects = (SceneObject(name="house", colour="red", box=box),)
    return [
        Example(
            id=f"row-{i}",
            image_id=f"{i}",
            images=tuple(map(png, pictures)),
            kind="describe",
            history=(),
            question=QUESTIONS[0],
            answer="a red house.",
            objects=objects,
            absent=("car",),
        )
        for i, pictures in enumerate(mixed(name))
    ]


@cache
def sampled(name: str, batch: int) -> list[Pair]:
    model, processor = built(name)
    settings = config(batch=batch)
    debias = Debias(model, processor, QUESTIONS[:1], settings.anchor, settings.seed)
    sampler = Sampler(settings, model, processor, WORDS, debias)
    rows = examples(name)
    outcomes = [
        (row, found)
        for part, outcome in sampler.found(rows)
        for row, found in zip(part, outcome, strict=True)
    ]
    return [
        sampled_pair(row, found, row.id, WORDS)
        for row, found in outcomes
        if isinstance(found, Found)
    ]


@pytest.mark.parametrize("name", CASES)
def test_pairs_fit_the_model_that_made_them(name, tmp_path):
    model, processor = built(name)
    pairs, path = sampled(name, batch=3), tmp_path / "pairs.parquet"
    assert pairs, "a random model's answers differ"
    origin = Origin(prompt=prompt_version(processor), model_type=model.config.model_type)
    write_pairs(path, pairs, origin)
    check_rows(model.config, processor, path, read_pairs(path), range(len(pairs)))
    for pair in pairs:
        pictures = [open_picture(content) for content in pair.images]
        layout = layout_of(model, encode(processor, [pictures], [pair.question]))
        inside = np.zeros(len(pair.anchor), bool)
        inside[[slot for view in layout.of(0) for slot in view.slots]] = True
        anchor = np.array(pair.anchor)
        assert anchor.sum() == pytest.approx(1, abs=1e-5) and not anchor[~inside].any()
        maps = support_maps(
            anchor, layout.of(0), places_of(model.config, processor, [p.size for p in pictures])
        )
        assert pair.support == tuple(one.tobytes() for one in maps)
        assert len(pair.support) == len(pair.images)
        named = [pair.chosen[place.start : place.end] for place in pair.places]
        assert named == [mention.name for mention in find(pair.chosen, WORDS.objects)]


@pytest.mark.parametrize("name", ["llava", "llava_next", "qwen2_5_vl", "smolvlm"])
def test_a_row_is_the_same_in_any_batch(name):
    for one, many in zip(sampled(name, batch=1), sampled(name, batch=3), strict=True):
        without = {"anchor": (), "support": ()}
        assert dataclasses.replace(one, **without) == dataclasses.replace(many, **without)
        assert one.anchor == pytest.approx(many.anchor, abs=1e-5)
