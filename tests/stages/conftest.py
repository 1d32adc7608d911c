"""A results folder of two small models and their answers, for tests of `answer` and `evaluate`."""

import dataclasses
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

from adapt.attention.settings import AnchorConfig
from adapt.data import scenes
from adapt.data.schema import Example, SceneObject, write_vocabulary
from adapt.data.tables import write_split
from adapt.generation.settings import Config, SteerConfig, SteerGrid, Steering
from adapt.models.load import save
from adapt.stages import answer
from tests.support import tiny_world

IMAGES = 16
SAID = ("car", "house", "tree")
K = 2
STEER = SteerConfig(alpha=2.0, tau=100.0, trigger="amc", anchor_share=1.0, layers=(0, 2))
GRID = SteerGrid(alpha=(0.0, 1.0, 4.0), tau=(100.0,), layers=((0, 2), "all"), descriptions=0)
ANSWER = Config(
    batch=8,
    actors=0,
    actor_cpus=1,
    traces=3,
    questions=0,
    benchmarks=(),
    anchor=AnchorConfig(anchor_tokens=K, noise_images=2),
    steer=Steering(**STEER.model_dump(), grid=GRID),
    device="cpu",
    max_new_tokens=8,
    seed=7,
)


def rows(split: str) -> list[Example]:
    """Scenes of which every second has each of the things that the untrained model can say."""
    examples = []
    for i in range(IMAGES):
        here = tuple(
            SceneObject(name=name, colour="red", box=(0, 0, 1, 1))
            for n, name in enumerate(SAID)
            if i >> n & 1
        )
        drawn = scenes.examples(split, i, size=32, caption_noise=0.0, seed=7)
        asked = [row for row in drawn if row.kind == "describe" or not i]
        examples += [dataclasses.replace(row, objects=here, absent=()) for row in asked]
    return examples


def written(root: Path, speaks: bool) -> Path:
    """Splits, and two untrained models; ones that `speaks` say nothing but the things in `SAID`."""
    splits = root / "data" / "splits"
    splits.mkdir(parents=True)
    for split in ("validation", "test"):
        write_split(splits / f"{split}.parquet", rows(split))
    write_vocabulary(splits / "vocabulary.json", scenes.vocabulary())
    tokenizer = tiny_world.processor().tokenizer
    words = tokenizer.convert_tokens_to_ids(list(SAID))
    for seed, stage in enumerate(("base", "train")):
        model = tiny_world.model(seed)
        if speaks:
            others = [i for i in range(len(tokenizer)) if i not in words]
            model.generation_config.suppress_tokens = others
        save(model, tiny_world.processor(), root / stage / "model")
    return root


@pytest.fixture(scope="session")
def answered(tmp_path_factory: pytest.TempPathFactory) -> Callable[[bool], Path]:
    """The results folder with `answer/` done, by whether the models name things."""

    @cache
    def make(speaks: bool) -> Path:
        root = written(tmp_path_factory.mktemp("results"), speaks)
        (root / "answer").mkdir()
        answer.run(ANSWER, root, root / "answer", lambda step, metrics: None)
        return root

    return make
