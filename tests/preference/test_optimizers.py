"""`train.optimizer`: what it keeps, its rates, and what is refused before anything is loaded.

That a run by Adafactor goes on from its checkpoint is in `test_fit.py`. AdamW in 8 bits needs a GPU
and bitsandbytes: its line of the plan is a hand count here.
"""

import dataclasses
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.optim.adamw import adamw
from transformers.optimization import Adafactor

from adapt.inspect import training
from adapt.inspect.estimate import Subject
from adapt.inspect.machine import imagined, machine
from adapt.inspect.sizes import sizes_of
from adapt.inspect.train_plan import pass_of
from adapt.models.prompts import prompt_inputs
from adapt.pairs.table import write_pairs
from adapt.params import InputError
from adapt.preference import offloaded
from adapt.preference.build import arguments, build_trainer
from adapt.preference.fit import fit
from adapt.preference.offloaded import OffloadedAdamW
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


def planned(config, place=None):
    """Sizes of the same model, and a pass of the plan."""
    model = tiny_world.model()
    inputs = prompt_inputs(model, tiny_world.processor(), [[tiny_world.picture()]], ["a thing?"])
    sizes = sizes_of(model, inputs, 16)
    subject = Subject(model=model, sizes=sizes, stored=torch.float32, shares=lambda length: True)
    return sizes, pass_of(subject, config, 8, place or machine(CPU))


@pytest.mark.parametrize("name", ["adamw", "adafactor", "offload"])
@pytest.mark.parametrize("changes", [{}, {"lora": lora(2)}], ids=["full", "lora"])
def test_the_plan_counts_what_an_optimizer_keeps(trained, name, changes):
    kind = {"offload": "optimizer"} if name == "offload" else {"optimizer": name}
    config = settings(steps=1, **kind, **changes)
    trainer = trained(config)
    states = trainer.optimizer.state.values()
    kept = [value for state in states for value in state.values() if isinstance(value, Tensor)]
    real = sum(value.nbytes for value in kept if value.dim())  # no counts of steps, no norms
    sizes, plan = planned(config)
    assert real == training.optimizer(sizes, plan) > 0, "on a CPU they are in the same memory"
    # A GPU sees those of one tensor at a time.
    sizes, away = planned(config, imagined(80))
    is_moved, largest = name == "offload", max(each.numel() for each in weights(trainer))
    assert training.optimizer(sizes, away) == (0 if is_moved else real)
    assert {training.visit(each) for each in (plan, away)} == {8 * largest if is_moved else 0}
    read = training.loading(sizes, away, 4)
    found = training.main_memory(sizes, away, 4), training.main_memory(sizes, away, -4)
    assert found == (read, real if is_moved else 0)
    assert training.checkpoint(sizes, away) == training.checkpoint(sizes, plan)


def weights(trainer):
    return [each for each in trainer.model.parameters() if each.requires_grad]


@pytest.mark.parametrize(
    "changes",
    [{"tower": "full", "tower_learning_rate": 2e-4}, {"lora": lora(2)}],
    ids=["full", "lora"],
)
def test_moments_in_main_memory_change_no_bit(trained, changes, monkeypatch):
    seen = []

    def watched(weights, gradients, firsts, seconds, *rest, **options):
        seen.append([each.data_ptr() for each in (*firsts, *seconds)])
        return adamw(weights, gradients, firsts, seconds, *rest, **options)

    monkeypatch.setattr(offloaded, "adamw", watched)
    plain, moved = (
        trained(settings(steps=4, offload=name, **changes)) for name in ("none", "optimizer")
    )
    assert type(moved.optimizer.optimizer) is OffloadedAdamW
    # 1. Weights and state, by names and bytes.
    kept = []
    for one, other in zip(weights(plain), weights(moved), strict=True):
        assert one.equal(other)
        states = [t.optimizer.state[w] for t, w in ((plain, one), (moved, other))]
        assert [*states[0]] == [*states[1]] == ["step", "exp_avg", "exp_avg_sq"]
        assert all(states[0][name].equal(states[1][name]) for name in states[0])
        kept += [states[1][name] for name in offloaded.MOMENTS]
    assert {group["lr"] for group in plain.optimizer.param_groups} == {
        group["lr"] for group in moved.optimizer.param_groups
    }
    # 2. The update has seen copies, one parameter after another.
    places = {each.data_ptr() for each in kept}
    assert len(places) == len(kept) and len(seen) == 4 * len(kept) // 2
    assert all(len(pair) == 2 and not places & {*pair} for pair in seen)


@pytest.mark.parametrize("fused", [True, None])
def test_groups_and_layouts_are_those_of_torch(fused):
    """Decay, rates, a tensor with its last dimension first, and one that has no gradient."""
    found = []
    for kind in (torch.optim.AdamW, OffloadedAdamW):
        torch.manual_seed(1)
        made = [torch.nn.Parameter(torch.randn(shape)) for shape in ((33, 7), (5,), (3, 4, 5, 6))]
        made[2].data = made[2].data.contiguous(memory_format=torch.channels_last)
        own = {"params": made[:1], "weight_decay": 0.3, "lr": 2e-2}
        optimizer = kind([own, {"params": made[1:]}], lr=1e-3, betas=(0.8, 0.9), fused=fused)
        for step in range(3):
            for each in made[: 2 + step % 2]:
                each.grad = torch.randn_like(each)
            optimizer.step()
            optimizer.zero_grad()
        found.append([*made, *(v for s in optimizer.state.values() for v in s.values())])
    assert len(found[0]) == len(found[1]) == 3 + 3 * 3
    assert all(one.equal(other) for one, other in zip(*found, strict=True))


def test_what_is_not_there_beside_gradients_takes_no_more(monkeypatch):
    """A visit is behind the passes: of the larger one of both."""
    sizes, plan = planned(settings(offload="optimizer"), imagined(80))
    for passed, more in ((0, True), (10**9, False)):
        monkeypatch.setattr(training, "activations", lambda sizes, plan, n=passed: n)
        parts = training.step(sizes, dataclasses.replace(plan, visits=10_000_000))
        rest = sum(parts.values()) - parts["weights"]
        least = 4 * plan.trained + 80_000_000
        assert (rest == least) if more else (rest > least and parts["optimizer"] == 0)


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
