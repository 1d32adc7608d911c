"""Pretraining of the embedded model: curves, what is frozen, and the same weights twice."""

import pytest
import torch

from adapt.data import scenes
from adapt.models import pretrain
from adapt.models.settings import Config, PromptConfig, ScratchConfig
from adapt.params import InputError
from tests.support import tiny_world

ROWS = [e for i in range(8) for e in scenes.examples("train", i, size=24, caption_noise=1, seed=7)]
WORLD = tiny_world.scenes(train=8, size=24, noise=1.0)
STEPS = 20


def trained(patch_size=8, **scratch):
    sizes = {"width": 16, "vision_layers": 1, "text_layers": 2, "heads": 2}
    steps = {"vision_steps": STEPS, "language_steps": STEPS}
    batches = {"vision_batch": 4, "language_batch": 4}
    options = {**sizes, **steps, **batches, "learning_rate": 3e-3, "patch_size": patch_size}
    plan = ScratchConfig(**options | scratch)
    config, curves = (
        Config(
            source="scratch",
            scratch=plan,
            scenes=WORLD,
            prompt=PromptConfig(template="", system=""),
            device="cpu",
            max_new_tokens=8,
            seed=7,
        ),
        [],
    )
    model, _ = pretrain.from_scratch(
        config, ROWS, scenes.vocabulary(), lambda step, metrics: curves.append((step, metrics))
    )
    return model, curves


def test_two_phases_log_their_curves_and_two_runs_give_the_same_weights():
    model, curves = trained()
    assert [step for step, _ in curves] == [10, 20, 30, 40]
    assert all(set(metrics) == {"vision_loss", "vision_accuracy"} for _, metrics in curves[:2])
    assert all(set(metrics) == {"language_loss", "grounding_loss"} for _, metrics in curves[2:])
    assert not model.training
    again, _ = trained()
    for one, two in zip(model.parameters(), again.parameters(), strict=True):
        assert torch.equal(one, two)


def test_the_second_phase_leaves_the_tower_alone():
    short, long = trained()[0], trained(language_steps=STEPS + 5)[0]
    towers = (model.model.vision_tower.parameters() for model in (short, long))
    assert all(torch.equal(one, two) for one, two in zip(*towers, strict=True))
    assert not torch.equal(short.lm_head.weight, long.lm_head.weight)


def test_patches_must_divide_the_images():
    with pytest.raises(InputError, match=r"base\.scratch\.patch_size: 7 does not divide"):
        trained(patch_size=7)
