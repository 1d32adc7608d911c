"""Debias masks: what they are, a mask per grid, and that they are estimated once per content."""

import pytest
import torch

from adapt.attention.anchor import by_grid, debias_mask
from adapt.attention.layout import layout_of
from adapt.attention.settings import AnchorConfig
from adapt.generation import batches, debias
from adapt.generation.answer import answer, first_maps
from adapt.models.prompts import prompt_inputs
from tests.support import families, tiny_world

CONFIG = AnchorConfig(anchor_tokens=2, noise_images=4)


@pytest.fixture
def answered(monkeypatch):
    """All batches that are answered."""
    seen = []
    monkeypatch.setattr(batches, "answer", lambda *given: seen.append(answer(*given)) or seen[-1])
    return seen


def masks(model, folder=None, seed=0, batch=4, processor=None, images=None):
    processor, images = processor or tiny_world.processor(), images or [[tiny_world.picture()]]
    questions = tiny_world.QUESTIONS if folder is None else tiny_world.QUESTIONS[:1]
    layout = layout_of(
        model, prompt_inputs(model, processor, images, families.QUESTIONS[:1] * len(images))
    )
    source = debias.Debias(model, processor, questions, CONFIG, seed, folder, batch)
    return source.covering(layout, images)


def test_masks_are_estimated_once_per_content(answered, tmp_path):
    first, again = (masks(tiny_world.model(), tmp_path) for _ in range(2))
    assert len(answered) == 1 and list(first) == [(4, 4)]
    assert torch.equal(first[4, 4], again[4, 4]) and first[4, 4].shape == (16,)
    masks(tiny_world.model(1), tmp_path)
    assert len(answered) == 2, "another model"
    masks(tiny_world.model(), tmp_path, seed=1)
    assert len(answered) == 3, "other noise"
    model = tiny_world.model()
    with torch.no_grad():
        next(model.get_decoder().parameters()).view(-1)[5] += 1e-3
    masks(model, tmp_path)
    assert len(answered) == 4, "one weight has changed"


def test_a_damaged_file_is_made_again(answered, tmp_path):
    first = masks(tiny_world.model(), tmp_path)
    (path,) = tmp_path.iterdir()
    whole = path.read_bytes()
    for damage in (b"", whole[:-7], b"no tensors", whole[:-4] + b"\xff" * 4):
        path.write_bytes(damage)
        assert torch.equal(masks(tiny_world.model(), tmp_path)[4, 4], first[4, 4])
        assert path.read_bytes() == whole
    assert len(answered) == 5


@pytest.mark.parametrize("batch", [4, 3, "auto"])
def test_a_mask_is_that_of_the_answers_to_noise(answered, batch):
    mask = masks(tiny_world.model(), batch=batch)[4, 4]
    assert sum(len(one.texts) for one in answered) == CONFIG.noise_images
    maps = torch.cat([first_maps(one, CONFIG.anchor_tokens) for one in answered])
    assert torch.equal(mask, debias_mask(maps))


def test_a_grid_is_estimated_when_it_appears(answered):
    model, processor = families.built("qwen2_vl")
    pictures = [[families.picture(size)] for size in families.CASES["qwen2_vl"].views]
    both = masks(model, processor=processor, images=pictures)
    assert {grid: len(mask) for grid, mask in both.items()} == {(4, 6): 24, (5, 3): 15}
    assert all(((mask > 0) & (mask <= 1)).all() for mask in both.values())
    assert len(answered) == 2
    (alone,) = masks(model, processor=processor, images=pictures[1:]).values()
    assert torch.equal(alone, both[5, 3])


def test_every_grid_of_an_image_has_a_mask_of_one_estimate(answered):
    model, processor = families.built("llava_next")
    found = masks(model, processor=processor, images=[[families.picture((32, 16))]])
    assert {grid: len(mask) for grid, mask in found.items()} == {(4, 4): 16, (4, 8): 32}
    (noise,) = answered
    assert {patches.grid for patches in by_grid(noise.layout)} == set(found)


def test_noise_of_several_pictures_in_a_prompt(answered):
    model, processor = families.built("qwen2_vl")
    sizes = list(families.CASES["qwen2_vl"].views)
    images = [[families.picture(size) for size in sizes]]
    assert set(masks(model, processor=processor, images=images)) == {(4, 6), (5, 3)}
    assert [view.image for view in answered[0].layout.of(0)] == [0, 1]


def test_a_prompt_whose_answer_is_kept_is_met_as_if_it_were_asked(answered):
    """Which size of picture shows a grid first decides the mask, also in a run that goes on."""
    model, processor = families.built("llava_next")
    sizes = [(32, 16), (30, 16)]
    pictures = [[families.picture(size)] for size in sizes]
    layout = layout_of(
        model, prompt_inputs(model, processor, pictures, families.QUESTIONS[:1] * len(pictures))
    )
    source = debias.Debias(model, processor, families.QUESTIONS, CONFIG, 0)
    whole = dict(source.covering(layout, pictures))
    cut = debias.Debias(model, processor, families.QUESTIONS, CONFIG, 0)
    cut.meet([view.grid for view in layout.of(0)], (sizes[0],))
    rest = layout_of(model, prompt_inputs(model, processor, pictures[1:], families.QUESTIONS[:1]))
    again = cut.covering(rest, pictures[1:])
    assert whole.keys() == again.keys()
    assert all(torch.equal(mask, again[grid]) for grid, mask in whole.items())
    estimated = len(answered)
    cut.meet(list(whole), (sizes[1],))
    assert len(answered) == estimated, "grids that were met are not estimated again"
