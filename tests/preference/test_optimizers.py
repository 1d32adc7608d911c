"""`train.optimizer`: what it keeps, its rates, and what is refused before anything is loaded.

That a run by Adafactor goes on from its checkpoint is in `test_fit.py`. AdamW in 8 bits needs a GPU
and bitsandbytes: its line of the plan is a hand count here.
"""

import dataclasses
from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers.optimization import Adafactor

from adapt.inspect import training
from adapt.inspect.estimate import Subject
from adapt.inspect.machine import machine
from adapt.inspect.sizes import sizes_of
from adapt.inspect.train_plan import pass_of
from adapt.models.prompts import prompt_inputs
from adapt.pairs.table import write_pairs
from adapt.params import InputError
from adapt.preference.build import arguments, build_trainer
from adapt.preference.fit import fit
from adapt.preference.reference import ReferenceCache
from tests.support import tiny_world
from tests.support.preference_rows import lora, origin, pairs, settings

CPU = torch.device("cpu")
MIB = 2**20


@pytest.fixture
def trained(base, tmp_path):
    """A trainer that has made the steps of a configuration."""
    write_pairs(tmp_path / "pairs.parquet", pairs(8), origin())

    def of(config):
        cache = ReferenceCache(uri=str(tmp_path / "reference"), base="one")
        files = (Path(base), tmp_path / "pairs.parquet", cache, tmp_path / "out")
        trainer, _ = build_trainer(config, CPU, *files)
        trainer.train()
        return trainer

    return of


def planned(config):
    """Sizes of the same model, and a pass of the plan."""
    model = tiny_world.model()
    inputs = prompt_inputs(model, tiny_world.processor(), [[tiny_world.picture()]], ["a thing?"])
    sizes = sizes_of(model, inputs, 16)
    subject = Subject(model=model, sizes=sizes, stored=torch.float32, shares=lambda length: True)
    return sizes, pass_of(subject, config, 8, machine(CPU))


@pytest.mark.parametrize("name", ["adamw", "adafactor"])
@pytest.mark.parametrize("changes", [{}, {"lora": lora(2)}], ids=["full", "lora"])
def test_the_plan_counts_what_an_optimizer_keeps(trained, name, changes):
    config = settings(steps=1, optimizer=name, **changes)
    states = trained(config).optimizer.state.values()
    kept = [value for state in states for value in state.values() if isinstance(value, Tensor)]
    real = sum(value.nbytes for value in kept if value.dim())  # no counts of steps, no norms
    assert real == training.optimizer(*planned(config)) > 0


def test_moments_of_eight_bits_by_hand():
    """A byte each, two scales for 256; full training leaves embeddings in float32."""
    sizes, plan = planned(settings(optimizer="adamw_8bit"))
    large = dataclasses.replace(plan, trained=256 * MIB, trains_head=False)
    assert training.optimizer(sizes, large) == 512 * MIB + 8 * MIB
    sizes = dataclasses.replace(sizes, head=64 * MIB)
    embedded = dataclasses.replace(large, trains_head=True)
    assert training.optimizer(sizes, embedded) == 192 * 2 * MIB + 192 * 8 * MIB // 256 + 512 * MIB


def test_rates_are_those_of_the_settings(trained):
    config = settings(optimizer="adafactor", steps=1, tower="full", tower_learning_rate=2e-4)
    trainer = trained(config)
    optimizer = trainer.optimizer.optimizer  # inside accelerate's
    assert type(optimizer) is Adafactor
    groups = [group for group in optimizer.param_groups if group["params"]]
    assert {group["initial_lr"] for group in groups} == {1e-3, 2e-4}
    for group in groups:
        assert not (group["relative_step"] or group["scale_parameter"] or group["warmup_init"])
    tower = {id(w) for n, w in trainer.model.named_parameters() if "vision_tower" in n}
    for group in groups:
        is_tower = {id(weight) in tower for weight in group["params"]}
        assert is_tower == {group["initial_lr"] == 2e-4}


def test_adamw_is_what_transformers_picks(tmp_path):
    named = {name: arguments(settings(optimizer=name), CPU, tmp_path).optim for name in NAMES}
    assert named == {"adamw": "adamw_torch_fused", "adamw_8bit": "adamw_8bit"} | {
        "adafactor": "adafactor"
    }


NAMES = ("adamw", "adamw_8bit", "adafactor")


def test_eight_bits_need_their_package_and_a_gpu(base, tmp_path):
    write_pairs(tmp_path / "pairs.parquet", pairs(8), origin())
    config, files = settings(optimizer="adamw_8bit"), (Path(base), tmp_path / "pairs.parquet")
    said = "^train.optimizer: moments in 8 bits need a CUDA GPU; set adamw or adafactor$"
    with pytest.raises(InputError, match=said):
        fit(config, *files, tmp_path / "out", tmp_path / "state", lambda step, metrics: None)
    assert not (tmp_path / "state" / "reference").exists()


def test_the_package_is_named_where_a_gpu_is_there(monkeypatch):
    from adapt.preference import optimizers

    monkeypatch.setattr(optimizers, "resolve", lambda device: torch.device("cuda"))
    monkeypatch.setattr(optimizers.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match="need the package bitsandbytes; set adamw or adafactor"):
        optimizers.check(settings(optimizer="adamw_8bit"))
    optimizers.check(settings(optimizer="adafactor"))
