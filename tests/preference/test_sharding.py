"""A model that is divided among two processes trains as the whole one does in one process."""

import dataclasses
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from adapt.attention.layout import layout_of
from adapt.models.load import load_model, save
from adapt.models.prompts import encode
from adapt.pairs.plain import write_plain
from adapt.pairs.table import Pair, PairView, write_pairs
from tests.preference.test_families import ASKED, rows
from tests.support import divided, tiny_world
from tests.support.divided import Case, Found
from tests.support.families import built, mixed
from tests.support.preference_rows import (
    lora,
    origin,
    pairs,
    plain_rows,
    settings,
    spanned,
)

STEPS = 6
QUICK = dict(steps=STEPS, batch_pairs=4, checkpoint_every=2)
"""The first step has a learning rate of 0."""
EVERY = dict(w_anchor=0.4, w_keep=0.6, span_weight=4.0, vag_form="same_text")
CASES: dict[str, dict[str, Any]] = {
    "llava-full": dict(tower="full", keep_form="sft", **EVERY),
    "llava-lora": dict(lora=lora(2), tower="lora", keep_form="kl", **EVERY),
    "llava-parts": dict(tower="full", accumulation=2, gradient_checkpointing=True),
    "qwen2_5_vl-full": dict(tower="full", w_vag=0.0),
    "qwen2_5_vl-lora": dict(lora=lora(2), gradient_checkpointing=True),
}


def family_pairs(name: str) -> list[Pair]:
    """The rows of `test_families` as pairs."""
    scores, made = dict(kind="describe", chosen_score=1.0, rejected_score=0.0), []
    views = layout_of(built(name)[0], encode(built(name)[1], mixed(name), ASKED)).views
    for i, row in enumerate(rows(name)):
        lists = {key: tuple(row[key]) for key in ("images", "anchor", "support")}
        lists["views"] = tuple(
            PairView(image=each.image, kind=each.kind, rows=each.grid[0], columns=each.grid[1])
            for each in views
            if each.sample == i
        )
        made.append(Pair(**scores, **(row | lists)))
    return made


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """By family, `base/`, `pairs.parquet` and `plain.parquet`."""
    folder = tmp_path_factory.mktemp("inputs")
    made = spanned(pairs(18))
    worlds = {"llava": (tiny_world.model(), tiny_world.processor(), made)}
    worlds["qwen2_5_vl"] = (*built("qwen2_5_vl"), family_pairs("qwen2_5_vl"))
    for name, (model, processor, pair_rows) in worlds.items():
        (folder / name).mkdir()
        save(model, processor, folder / name / "base")
        write_pairs(folder / name / "pairs.parquet", pair_rows, origin())
        write_plain(folder / name / "plain.parquet", plain_rows(10))
    return folder


def cases(inputs: Path, workers: int, **changes: Any) -> list[Case]:
    """All cases, divided among so many workers, or for 0 undivided."""
    made = []
    how = dict(workers=workers, shard="fsdp" if workers else "none", **QUICK)
    for name, own in CASES.items():
        config, family = settings(**(how | own | changes)), inputs / name.partition("-")[0]
        plain = family / "plain.parquet" if config.w_keep else None
        made.append(Case(name, config, family / "base", family / "pairs.parquet", plain))
    return made


@pytest.fixture(scope="module")
def alone(inputs, tmp_path_factory) -> dict[str, Found]:
    return divided.run(cases(inputs, 0), 1, tmp_path_factory.mktemp("alone") / "run")


@pytest.fixture(scope="module")
def two(inputs, tmp_path_factory) -> dict[str, Found]:
    made = cases(inputs, 2)
    twin = next(case for case in made if case.name == "llava-full")
    made.append(dataclasses.replace(offloaded(twin), name="llava-full, offload"))
    return divided.run(made, 2, tmp_path_factory.mktemp("two") / "run")


def offloaded(case: Case) -> Case:
    """The same with AdamW's moments in main memory."""
    changed = case.config.model_copy(update={"offload": "optimizer"})
    return dataclasses.replace(case, config=changed)


def resumed(made: list[Case], two: dict[str, Found], step: int = 2) -> list[Case]:
    """The cases, from where two processes were after a step: within an epoch, or at its end."""
    return [dataclasses.replace(c, resume=two[c.name].checkpoint(step)) for c in made]


def near(found: Any, expected: Any, tolerance: float = 1e-5) -> None:
    torch.testing.assert_close(found, expected, atol=tolerance, rtol=tolerance)


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_loss_gradients_and_norm_of_a_step_are_those_of_one_process(name, alone, two):
    whole, shared = alone[name], two[name]
    assert not shared.error
    assert len(shared.losses) == len(whole.losses) == STEPS
    assert shared.losses == pytest.approx(whole.losses, rel=1e-5)
    assert shared.norms == pytest.approx(whole.norms, rel=1e-5)
    for step in (0, 1):  # at the same weights
        assert shared.gradients[step].keys() == whole.gradients[step].keys()
        near(shared.gradients[step], whole.gradients[step])
    assert any(gradient.abs().max() > 1e-2 for gradient in whole.gradients[0].values())


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_the_exported_model_is_that_of_one_process(name, alone, two, inputs):
    (file,) = two[name].model.glob("*.safetensors")
    assert load_file(file).keys() == load_file(alone[name].model / file.name).keys()
    base = load_model(inputs / name.partition("-")[0] / "base").state_dict()
    found = same_models(two[name], alone[name])
    assert any(not found[key].equal(base[key]) for key in found)


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_each_worker_holds_and_writes_its_share(name, two, alone):
    """Weights and both moments: 12 bytes for each trained weight, over both workers together."""
    files = sorted(two[name].checkpoint(STEPS).glob("shard-*.safetensors"))
    sizes = [sum(each.numel() for each in load_file(file).values()) for file in files]
    trained = [each.numel() for each in alone[name].gradients[0].values()]
    assert len(sizes) == 2
    assert sum(sizes) == 3 * sum(trained) + len(trained), "and of each tensor Adam's steps"
    assert max(sizes) < 0.55 * sum(sizes)


@pytest.mark.slow
def test_moments_in_main_memory_change_no_bit_of_model_and_checkpoints(two):
    """Weights, moments, and where the rows of each worker begin."""
    one, other = two["llava-full"], two["llava-full, offload"]
    names = [f"model/{file.name}" for file in one.model.glob("*.safetensors")]
    names += [f"work/checkpoint-{STEPS}/shard-{rank}.safetensors" for rank in (0, 1)]
    for name in names:
        with (
            safe_open(one.folder / name, "pt") as left,
            safe_open(other.folder / name, "pt") as right,
        ):
            assert left.metadata() == right.metadata() and {*left.keys()} == {*right.keys()}
            for key in left.keys():  # noqa: SIM118
                assert left.get_tensor(key).equal(right.get_tensor(key)), f"{name}: {key}"


@pytest.mark.slow
def test_adapters_in_32_bits_over_a_base_in_16(inputs, tmp_path):
    """The base is exchanged in 16 bits, and the passes compute in them."""
    save(tiny_world.model(), tiny_world.processor(), tmp_path / "base", torch.bfloat16)
    found = []
    for workers in (0, 2):
        made = next(c for c in cases(inputs, workers, precision="bf16") if c.name == "llava-lora")
        made = dataclasses.replace(made, base=tmp_path / "base")
        found.append(divided.run([made], max(workers, 1), tmp_path / f"{workers}")[made.name])
    whole, shared = found
    assert shared.losses == pytest.approx(whole.losses, rel=0.02)
    assert all(each.dtype == torch.float32 for each in shared.gradients[0].values())
    assert shared.gradients[0].keys() == whole.gradients[0].keys()


def same_models(found: Found, expected: Found) -> dict[str, torch.Tensor]:
    """The weights of both are near each other; returns the first ones."""
    weights, others = (load_model(one.model).state_dict() for one in (found, expected))
    assert weights.keys() == others.keys()
    for key, value in others.items():
        # The same for all keys, this bias changes no attention: its gradient is 0 but for rounding,
        # of which Adam makes whole steps.
        if not key.endswith("k_proj.bias"):
            near(weights[key], value)
    return weights


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 1, 2, 4], ids="{}-workers".format)
def test_a_training_goes_on_with_another_number_of_workers(workers, inputs, alone, two, tmp_path):
    """From the checkpoint of two; 0 workers: undivided, in one process. Some with their moments in
    main memory from there on.
    """
    made = cases(inputs, workers, **({"accumulation": 1} if workers == 4 else {}))
    moved = ("llava-full", "qwen2_5_vl-lora")
    made = [offloaded(case) if case.name in moved else case for case in made]
    found = divided.run(resumed(made, two), max(workers, 1), tmp_path / "run")
    for name, one in found.items():
        assert len(one.norms) == STEPS - 2, "it has not begun anew"
        assert one.losses == pytest.approx(alone[name].losses, rel=1e-5)
        assert one.norms == pytest.approx(alone[name].norms[2:], rel=1e-4)
        same_models(one, two[name])


@pytest.mark.slow
def test_workers_stop_together_and_an_undivided_checkpoint_is_refused(inputs, alone, tmp_path):
    """A loss that is not finite ends the run at both, before the weights have seen it."""
    case = next(case for case in cases(inputs, 2) if case.name == "llava-parts")
    bad = case.config.model_copy(update={"learning_rate": 1e30})
    made = [dataclasses.replace(case, name="nan", config=bad)]
    other = alone["llava-full"].checkpoint(4)
    made.append(dataclasses.replace(case, name="other", resume=other))
    found = divided.run(made, 2, tmp_path / "run")
    assert re.match(r"the loss is (nan|inf|-inf) at step \d, in the rows row-", found["nan"].error)
    rows = found["nan"].error.partition(" in the rows ")[2].split(", ")
    assert len(rows) == 4, "of both"
    assert any(not each.isfinite().all() for each in found["nan"].gradients[-1].values())
    assert found["other"].error == (
        f"{other} was made with train.shard: none, and cannot be divided; "
        "go on with that, or remove it to start anew"
    )
