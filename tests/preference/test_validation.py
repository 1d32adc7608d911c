"""`train.validation`: the best checkpoint by the Hal of its descriptions, and the same training."""

import csv
import dataclasses
import json
from pathlib import Path

import pytest
import torch

from adapt.data.schema import Example, SceneObject, Vocabulary
from adapt.data.tables import write_split
from adapt.generation.choosing import best
from adapt.models.load import load_model, save
from adapt.models.prompts import prompt_version
from adapt.pairs.plain import write_plain
from adapt.pairs.table import Origin, write_pairs
from adapt.params import InputError
from adapt.preference.checkpoints import LocalCheckpoints
from adapt.preference.fit import _setup, fit
from adapt.preference.settings import Config
from adapt.preference.validation import best_of
from adapt.progress import unlogged
from tests.faults.test_divided_training_cut_off import CUT, driven
from tests.preference.test_fit import inputs
from tests.preference.test_sharding import family_pairs
from tests.support import divided, limits, tiny_world
from tests.support.families import built
from tests.support.preference_rows import lora, png, settings

__all__ = ["inputs"]  # a fixture

WORDS = {"car": ["car", "a"], "house": ["house", "no", "there"], "tree": ["tree", "blue"]}
"""Of so few words a random model says something that counts."""
QUICK = dict(steps=14, checkpoint_every=2, validation=20, learning_rate=3e-2, w_vag=0.0)
SHORT = QUICK | dict(steps=8, learning_rate=1e-2)
"""So far rounding does not show in what is said."""
FIGURES = ("hal", "chair_i", "cover")
Weights = dict[str, torch.Tensor]


def known(count: int) -> list[Example]:
    """Questions for descriptions of pictures in which there is one thing or another, or two."""
    there = [("car",), ("house",), ("tree",), ("car", "house"), ("house", "tree")]
    return [
        Example(
            id=f"seen-{i}",
            image_id=str(i),
            images=(png(tiny_world.picture(200 + i)),),
            kind="describe",
            history=(),
            question=tiny_world.QUESTIONS[0],
            answer="",
            objects=[SceneObject(name=name, colour="", box=None) for name in there[i % len(there)]],
            absent=None,
        )
        for i in range(count)
    ]


@pytest.fixture(scope="module")
def splits(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("splits")
    write_split(folder / "validation.parquet", known(30))
    (folder / "vocabulary.json").write_text(json.dumps({"objects": WORDS, "colours": []}))
    return folder


def train(inputs, splits, to, config: Config, log=lambda step, metrics: None) -> dict[str, float]:
    (to / "out").mkdir(parents=True, exist_ok=True)
    base, pairs, plain = (inputs / name for name in ("base", "pairs.parquet", "plain.parquet"))
    return fit(config, base, pairs, to / "out", to / "state", log, plain=plain, splits=splits)


def curves(to: Path) -> dict[int, dict[str, float]]:
    """What the history has of each step."""
    with (to / "out/history.csv").open() as file:
        rows = [
            {name: float(value) for name, value in row.items() if value}
            for row in csv.DictReader(file)
        ]
    return {int(row.pop("step")): row for row in rows}


def same(weights: Weights, others: Weights) -> None:
    assert weights.keys() == others.keys()
    assert all(weights[name].equal(others[name]) for name in others)


@pytest.fixture
def saved(monkeypatch) -> dict[int, Weights]:
    """The weights of each checkpoint, by its step."""
    found: dict[int, Weights] = {}
    save = LocalCheckpoints.save

    def kept(self: LocalCheckpoints, folder: Path) -> None:
        if (folder / "trainer_state.json").exists():
            weights = load_model(folder).state_dict()
            found[int(folder.name.rpartition("-")[2])] = weights
        save(self, folder)

    monkeypatch.setattr(LocalCheckpoints, "save", kept)
    return found


def points(to: Path) -> dict[int, dict[str, float]]:
    """What was found of the base and of each checkpoint."""
    return {
        step: {name: row[f"validation/{name}"] for name in FIGURES}
        for step, row in curves(to).items()
        if "validation/hal" in row
    }


@pytest.mark.parametrize(
    "changes",
    [{}, dict(gradient_checkpointing=True, w_attn=0.5), dict(precision="bf16", accumulation=2)],
    ids=["", "checkpointing", "bf16"],
)
def test_the_best_checkpoint_of_the_same_training_is_the_result(
    inputs, splits, tmp_path, saved, changes
):
    metrics = train(inputs, splits, tmp_path / "best", settings(**QUICK | changes))
    found, last = points(tmp_path / "best"), saved[QUICK["steps"]]
    assert [*found] == [0, 2, 4, 6, 8, 10, 12, 14]
    step = metrics["best/step"]
    assert step < QUICK["steps"], "so that there is something to see"
    rest = [found[step] for step in found if step]
    assert found[step] == rest[best(rest, found[0])]
    assert all(metrics[f"best/{name}"] == found[step][name] for name in FIGURES)
    same(load_model(tmp_path / "best/out/model").state_dict(), saved[step])

    alone = settings(**QUICK | changes | {"validation": 0})
    assert "best/step" not in train(inputs, splits, tmp_path / "last", alone)
    same(saved[QUICK["steps"]], last)
    rows = curves(tmp_path / "best")
    for number, row in curves(tmp_path / "last").items():
        assert row.items() <= rows[number].items()


@pytest.mark.parametrize("name", ["qwen2_5_vl", "gemma3"])
def test_a_family_that_remembers_its_positions_trains_on_as_before(splits, tmp_path, name):
    model, processor = built(name)
    save(model, processor, tmp_path / "base")
    kind = Origin(prompt=prompt_version(processor), model_type=model.config.model_type)
    write_pairs(tmp_path / "pairs.parquet", family_pairs(name), kind)
    write_plain(tmp_path / "plain.parquet", [])
    how = dict(steps=3, checkpoint_every=1, batch_pairs=2, w_vag=0.0)
    for count in (0, 5):
        train(tmp_path, splits, tmp_path / f"{count}", settings(**how, validation=count))
    found, expected = curves(tmp_path / "5"), curves(tmp_path / "0")
    assert all(expected[step].items() <= found[step].items() for step in expected)
    assert [*points(tmp_path / "5")] == [0, 1, 2, 3]


@pytest.mark.parametrize("at", [5, 9, 14])
def test_a_run_that_was_cut_off_comes_to_the_same_result(inputs, splits, tmp_path, at):
    """Before the best checkpoint, behind it, and in the last step."""
    config = settings(**QUICK, lora=lora(4), accumulation=2)
    whole = train(inputs, splits, tmp_path / "whole", config)
    assert whole["best/step"] < QUICK["steps"]

    def stop(step: int, metrics: dict[str, float]) -> None:
        if step == at and "loss" in metrics:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(inputs, splits, tmp_path / "cut", config, stop)
    seen: list[int] = []
    again = train(inputs, splits, tmp_path / "cut", config, lambda step, _: seen.append(step))
    assert seen[0] == (at - 1) // 2 * 2 + 1, "resumed, and the base is not asked again"
    assert again == whole
    for name in ("model/model.safetensors", "model/adapter/adapter_model.safetensors"):
        first, second = (tmp_path / to / "out" / name for to in ("whole", "cut"))
        assert first.read_bytes() == second.read_bytes()
    assert (tmp_path / "cut/out/history.csv").read_bytes() == (
        tmp_path / "whole/out/history.csv"
    ).read_bytes()


def test_where_nobody_knows_what_is_there_it_is_said_before_training(inputs, tmp_path):
    rows = [dataclasses.replace(row, objects=None) for row in known(3)]
    write_split(tmp_path / "validation.parquet", rows)
    says = (
        r"^train\.validation: nobody knows what is in the pictures that .*validation\.parquet asks"
    )
    with pytest.raises(
        InputError, match=f"{says} to describe; set it to 0, for the last checkpoint"
    ):
        train(inputs, tmp_path, tmp_path / "run", settings(**QUICK))
    assert not [*(tmp_path / "run/state").glob("train-*")]


def test_what_is_validated_on_names_the_run(inputs, splits, tmp_path):
    """Without validation neither the split nor the length of answers is part of it."""

    def named(where: Path | None, **changes: int) -> str:
        length = changes.pop("max_new_tokens", 8)
        config = settings(**changes).model_copy(update={"max_new_tokens": length})
        files = (inputs / "base", inputs / "pairs.parquet", None, where, str(tmp_path))
        return _setup(
            config, *files, lambda path: path.read_bytes().hex() if path.is_file() else "", unlogged
        ).name

    write_split(tmp_path / "validation.parquet", known(5))
    asked = [dict(validation=4), dict(validation=5), dict(validation=5, max_new_tokens=9)]
    names = [named(splits, **changes) for changes in asked]
    names += [named(tmp_path, validation=4), named(None), named(splits)]
    assert len({*names}) == 5 and names[-1] == names[-2]
    assert named(None, max_new_tokens=9) == names[-1]


def divided_cases(inputs: Path, splits: Path, workers: int) -> list[divided.Case]:
    kind = "fsdp" if workers else "none"
    how = SHORT | dict(workers=workers, shard=kind, accumulation=2 - workers // 2)
    files = (inputs / "base", inputs / "pairs.parquet")
    on = dict(split=splits / "validation.parquet", words=Vocabulary(objects=WORDS, colours=()))
    return [
        divided.Case(name, settings(**how | own), *files, **on)
        for name, own in {
            "full": dict(tower="full"),
            "lora": dict(lora=lora(4), learning_rate=6e-2),
        }.items()
    ]


@pytest.mark.slow
def test_two_processes_with_a_share_each_find_what_one_finds(inputs, splits, tmp_path):
    two = divided.run(divided_cases(inputs, splits, 2), 2, tmp_path / "two")
    one = divided.run(divided_cases(inputs, splits, 0), 1, tmp_path / "one")
    for name in two:
        assert not two[name].error
        assert two[name].points == one[name].points
        assert best_of(one[name].points)["step"] < SHORT["steps"]
        near(load_model(two[name].model), load_model(one[name].model))


@pytest.mark.slow
@pytest.mark.timeout(limits.WHOLE_TEST_S)
@pytest.mark.parametrize(("then", "shard"), [(2, "none"), (1, "none"), (1, "fsdp")])
def test_workers_of_ray_are_cut_off_and_come_to_what_one_process_finds(
    inputs, splits, tmp_path, then, shard
):
    """Two workers, and then as many or one, which finds the best weights in the checkpoint."""
    every = tmp_path / "every"
    every.mkdir()
    for path in (*inputs.iterdir(), *splits.iterdir()):
        (every / path.name).symlink_to(path)
    asked = dict(SHORT, max_failures=0, shard=shard)
    code, said = driven(every, tmp_path, asked | {"workers": 2, "cut": CUT})
    assert code != 0 and "this training is cut off" in said, said[-3000:]
    code, said = driven(every, tmp_path, asked | {"workers": then, "cut": 0})
    assert code == 0 and "train: resuming from 4 of 8 steps" in said, said[-3000:]
    metrics = train(inputs, splits, tmp_path / "alone", settings(**SHORT, accumulation=2))
    assert metrics["best/step"] < CUT, "its weights were in the checkpoint"
    assert points(tmp_path) == points(tmp_path / "alone")
    near(load_model(tmp_path / "out/model"), load_model(tmp_path / "alone/out/model"))


def near(found: torch.nn.Module, expected: torch.nn.Module) -> None:
    weights, others = found.state_dict(), expected.state_dict()
    for name in others:
        if not name.endswith("k_proj.bias"):  # see `test_sharding`
            torch.testing.assert_close(weights[name], others[name], atol=1e-3, rtol=1e-3)
