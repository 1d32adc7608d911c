"""Every family through every stage: data, base, pairs, train with all terms, answer, evaluate.

The models are tiny twins with random weights; pictures have three sizes, and in some rows there are
two of them. What the models say is noise: that every stage takes it, and what each of them changes,
is the point.
"""

import copy
import io
import math
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

from adapt import launch, params
from adapt.data.schema import SPLITS, Example, SceneObject, Vocabulary, write_vocabulary
from adapt.data.tables import write_split
from adapt.models.load import load_model, save
from adapt.models.roles import role_of_parameters
from adapt.pairs.table import read_pairs
from tests.support import workspace
from tests.support.families import ANSWER, CASES, QUESTIONS, built, picture

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
SIZES = ((48, 32), (32, 64), (40, 40))
THINGS = ("car", "house", "tree")
SETTINGS: dict[str, Any] = {
    "max_new_tokens": 8,
    "pairs": {"images": 12, "samples": 4, "min_gap": 0.01, "chosen": "any"},
    "train": {
        "workers": 0,
        "batch_pairs": 4,
        "steps": 2,
        "learning_rate": 1e-2,
        "w_vag": 0.5,
        "w_attn": 0.5,
        "tower": "frozen",
        "checkpoint_every": 2,
    },
    "answer": {"traces": 1},
    "evaluate": {"bootstrap": 20, "panels": 1},
    "anchor": {"anchor_tokens": 2, "noise_images": 2},
}


def png(number: int) -> bytes:
    file = io.BytesIO()
    picture(SIZES[number % 3], number).save(file, "PNG")
    return file.getvalue()


def rows(split: str, count: int) -> list[Example]:
    """Descriptions, every third of two pictures of different sizes, and a question with a tag."""
    made, first = [], 300 * SPLITS.index(split)
    for i in range(count):
        truth = [name for n, name in enumerate(THINGS) if i >> n & 1]
        objects = [SceneObject(name=name, colour="red", box=(0, 0, 1, 1)) for name in truth]
        texts = {"question": QUESTIONS[0], "answer": "a red car.", "history": ()}
        if i % 3 == 2:
            texts["question"] = "describe <image> the picture <image>."
        made.append(
            Example(
                **texts,
                id=f"{split}-{i}",
                image_id=f"{split}-{i}",
                images=(png(first + i), png(first + i + 1))[: 1 + (i % 3 == 2)],
                kind="describe",
                objects=tuple(objects),
                absent=(),
            )
        )
    return made


def unspoken(tokenizer: Any) -> list[int]:
    """All but the words of an answer and its end, so that what is said can be told apart."""
    spoken = {*tokenizer(ANSWER, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id}
    return [token for token in range(len(tokenizer)) if token not in spoken]


def data(folder: Path) -> Path:
    """A data set as a user brings it."""
    folder.mkdir()
    for split, count in (("train", 12), ("validation", 3), ("test", 6)):
        write_split(folder / f"{split}.parquet", rows(split, count))
    words = {name: (name,) for name in THINGS}
    write_vocabulary(
        folder / "vocabulary.json", Vocabulary(objects=words, colours=("red", "blue", "green"))
    )
    return folder


def run(stage: str, root: Path, settings: dict[str, Any]) -> dict[str, float]:
    """A stage as `launch` runs it, without tracking."""
    content = params.read(workspace.ROOT / "params.yaml")
    workspace._override(content, settings)
    out = root / "results" / stage
    out.mkdir(parents=True)
    config = launch.configs(content)[stage]
    return launch.stage_module(stage).run(config, root / "results", out, lambda step, point: None)


def moved(results: Path) -> dict[str, set[str]]:
    """By role, the tensors that training has changed."""
    before, after = (load_model(results / stage / "model") for stage in ("base", "train"))
    weights, roles = before.state_dict(), role_of_parameters(after)
    changed: dict[str, set[str]] = {"tower": set(), "projector": set(), "decoder": set()}
    for key, value in after.state_dict().items():
        if not torch.equal(value, weights[key]):
            changed[roles[key]].add(key)
    return changed


@pytest.mark.parametrize("lora", [False, True], ids=["full", "lora"])
@pytest.mark.parametrize("name", list(CASES))
def test_a_family_goes_through_every_stage(name: str, lora: bool, tmp_path: Path) -> None:
    model, processor = copy.deepcopy(built(name)[0]), built(name)[1]
    model.generation_config.suppress_tokens = unspoken(processor.tokenizer)
    save(model, processor, tmp_path / "hub")
    sources = {
        "data": {"source": str(data(tmp_path / "mine"))},
        "base": {"source": str(tmp_path / "hub")},
    }
    settings = SETTINGS | sources
    if lora:
        settings["train"] = SETTINGS["train"] | {"lora": {"rank": 2}}
    results = tmp_path / "results"
    for stage in ("data", "base", "pairs"):
        run(stage, tmp_path, settings)
    # 1. Pairs of both kinds of rows, on more than one layout where the family has several.
    pairs = read_pairs(results / "pairs" / "pairs.parquet")
    assert {len(pair.images) for pair in pairs} == {1, 2}
    assert all(len(pair.support) == len(pair.images) for pair in pairs)
    # 2. Training moves decoder and projector and leaves the tower alone.
    metrics = run("train", tmp_path, settings)
    assert all(math.isfinite(value) for value in metrics.values())
    changed = moved(results)
    assert changed["decoder"] and not changed["tower"]
    assert bool(changed["projector"]) is not lora
    if lora:
        assert all("_proj" in key or "mlp" in key for key in changed["decoder"])
        assert (results / "train" / "model" / "adapter" / "adapter_config.json").exists()
    # 3. Answers of all rows, plain and steered, and figures of them.
    run("answer", tmp_path, settings)
    responses = pd.read_parquet(results / "answer" / "responses.parquet")
    assert len(responses[responses.split == "test"]) == 4 * 6
    two = responses[responses.id.isin(["test-2", "test-5"])]
    assert {len(grids) for grids in two.grids} == {2}
    metrics = run("evaluate", tmp_path, settings)
    assert {"base/hal", "tuned/hal", "tuned_steered/cover"} <= metrics.keys()
    assert any((results / "evaluate" / "panels").iterdir())
