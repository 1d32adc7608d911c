"""Debias masks: what they are, and that they are estimated once per content."""

import torch

from adapt.attention.anchor import debias_mask
from adapt.attention.settings import AnchorConfig
from adapt.generation import debias
from adapt.generation.answer import answer, first_maps
from tests.support import families, tiny_world

CONFIG = AnchorConfig(anchor_tokens=2, noise_images=4)


def masks(model, seed=0):
    processor = tiny_world.processor()
    return debias.debias_masks(model, processor, tiny_world.QUESTIONS, (32, 32), CONFIG, seed)


def test_masks_are_estimated_once_per_content(monkeypatch):
    answered = []
    monkeypatch.setattr(debias, "_masks", {})
    monkeypatch.setattr(debias, "answer", lambda *given: answered.append(given) or answer(*given))
    first, again = masks(tiny_world.model()), masks(tiny_world.model())
    assert len(answered) == 1 and list(first) == [(4, 4)]
    assert torch.equal(first[4, 4], again[4, 4]) and first[4, 4].shape == (16,)
    masks(tiny_world.model(1))
    assert len(answered) == 2, "another model"
    masks(tiny_world.model(), seed=1)
    assert len(answered) == 3, "other noise"
    model = tiny_world.model()
    with torch.no_grad():
        next(model.get_decoder().parameters()).view(-1)[5] += 1e-3
    masks(model)
    assert len(answered) == 4, "one weight has changed"


def test_a_mask_is_that_of_the_answers_to_noise(monkeypatch):
    answers = []
    monkeypatch.setattr(debias, "_masks", {})
    monkeypatch.setattr(
        debias, "answer", lambda *given: answers.append(answer(*given)) or answers[-1]
    )
    mask = masks(tiny_world.model())[4, 4]
    assert len(answers[0].texts) == CONFIG.noise_images
    assert torch.equal(mask, debias_mask(first_maps(answers[0], CONFIG.anchor_tokens)))


def test_every_grid_of_an_image_has_a_mask():
    model, processor = families.built("llava_next")
    by_grid = debias.debias_masks(model, processor, families.QUESTIONS, (32, 16), CONFIG, 0)
    assert {grid: len(mask) for grid, mask in by_grid.items()} == {(4, 4): 16, (4, 8): 32}
    assert all(((mask > 0) & (mask <= 1)).all() for mask in by_grid.values())
