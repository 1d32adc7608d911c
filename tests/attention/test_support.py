"""Maps over a picture: by hand, against bilinear upsampling of one grid, and there and back."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from adapt.attention.layout import View, layout_of
from adapt.attention.places import Place, places_of
from adapt.attention.support import SIDE, picture_map, support_maps
from tests.support.families import CASES, built, inputs, picture

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


def place(grid, rows=(0.0, 1.0), columns=(0.0, 1.0)):
    """A grid over a part of a picture."""
    (top, bottom), (left, right) = rows, columns
    ys = top + (np.arange(grid[0]) + 0.5) / grid[0] * (bottom - top)
    xs = left + (np.arange(grid[1]) + 0.5) / grid[1] * (right - left)
    return Place(ys, xs, ((bottom - top) / grid[0], (right - left) / grid[1]))


def view(grid, first=0, image=0):
    slots = tuple(range(first, first + grid[0] * grid[1]))
    return View(0, image, "whole", grid, slots, slots)


def resized(support, size):
    return np.asarray(Image.fromarray(support.astype(np.float32)).resize(size, 2)) / 255


def test_one_grid_is_upsampled_as_the_pixels_of_a_picture_would_be():
    for seed in range(5):
        anchor = torch.tensor(np.random.default_rng(seed).dirichlet(np.full(36, 0.5))).float()
        (found,) = support_maps(anchor, [view((6, 6))], [[place((6, 6))]])
        assert found.shape == (SIDE, SIDE) and found.dtype == np.uint8
        scaled = (anchor - anchor.min()) / (anchor.max() - anchor.min())
        want = F.interpolate(scaled.view(1, 1, 6, 6), size=(48, 48), mode="bilinear")[0, 0].numpy()
        away = np.abs(resized(found, (48, 48)) - want)
        # The peaks of 6 x 6 cells are a little blunt on 32 x 32.
        assert away.mean() < 0.005 and away.max() < 0.07


def test_a_tile_has_the_same_weight_per_area_as_the_whole_picture():
    """Attention 1 on the whole picture, and 1 more on its left half, which is a quarter as many
    tokens: the left half has three times the density of the right one."""
    whole, left = place((4, 4)), place((4, 1), columns=(0.0, 0.5))
    views = [view((4, 4)), view((4, 1), first=16)]
    values = torch.cat([torch.full((16,), 1 / 16), torch.full((4,), 1 / 4)])
    ((heat, grid),) = picture_map(values, views, [[whole, left]])
    heat = heat.reshape(grid)
    assert grid == (SIDE, SIDE) and heat.sum() == pytest.approx(2)
    assert np.allclose(heat[:, : SIDE // 2], 3 * heat[:, SIDE // 2 :])
    (support,) = support_maps(values, views, [[whole, left]])
    assert (support[:, : SIDE // 2] == 255).all() and not support[:, SIDE // 2 :].any()


def test_what_a_view_does_not_show_is_not_supported():
    cropped = place((4, 4), columns=(0.25, 0.75))
    (support,) = support_maps(torch.ones(16), [view((4, 4))], [[cropped]])
    assert (
        (support[:, 8:24] == 255).all() and not support[:, :8].any() and not support[:, 24:].any()
    )
    ((heat, grid),) = picture_map(torch.ones(16), [view((4, 4))], [[cropped]])
    assert grid == (SIDE, SIDE) and not heat.reshape(grid)[:, :8].any()


def test_padding_has_no_say():
    padded = Place(np.array([np.nan, 0.25, 0.75, np.nan]), np.array([0.5]), (0.5, 1.0))
    values = torch.tensor([9.0, 1.0, 0.0, 9.0])
    (support,) = support_maps(values, [view((4, 1))], [[padded]])
    assert (support[:8] == 255).all() and not support[24:].any()
    nothing = Place(np.full(4, np.nan), np.full(1, np.nan), (0.0, 0.0))
    (support,) = support_maps(values, [view((4, 1))], [[nothing]])
    assert not support.any()


def test_a_map_that_is_the_same_everywhere_keeps_all_or_nothing():
    places = [[place((3, 3))], [place((2, 2))]]
    views = [view((3, 3)), view((2, 2), first=9, image=1)]
    first, second = support_maps([0.1] * 9 + [0.0] * 4, views, places)
    assert (first == 255).all() and not second.any()


def test_tokens_of_one_grid_are_shown_as_they_are_many_maps_at_once():
    values = torch.rand(3, 2, 8)
    views = [view((2, 2), first=1), view((1, 3), first=5, image=1)]
    (first, grid), (second, other) = picture_map(values, views, [[place((2, 2))], [place((1, 3))]])
    assert (grid, other) == ((2, 2), (1, 3))
    assert np.array_equal(first, values[..., 1:5].numpy())
    assert np.array_equal(second, values[..., 5:8].numpy())


def read_back(support, places):
    """The values that the tokens of a picture have on its map: density there, times their area."""
    values = []
    for one in places:
        lines = (np.arange(SIDE) + 0.5) / SIDE
        columns = np.stack([np.interp(one.xs, lines, line) for line in support], axis=0)
        cells = np.stack([np.interp(one.ys, lines, line) for line in columns.T], axis=1)
        values.append(np.nan_to_num(cells * one.cell[0] * one.cell[1]).ravel())
    return np.concatenate(values)


def cosine(a, b):
    return a @ b / np.linalg.norm(a) / np.linalg.norm(b)


@pytest.mark.parametrize("name", list(CASES))
def test_there_and_back(name):
    """Tokens that look at one spot become a map of that spot, and have their values on it.

    Views that disagree cannot both be right on one map: noise comes back where there is one view.
    """
    model, processor = built(name)
    (down, right), sizes = (0.3, 0.6), list(CASES[name].views)
    views = layout_of(model, inputs(name, [list(map(picture, sizes))])).of(0)
    places = places_of(model.config, processor, sizes)
    blob, noise = np.zeros(999), np.random.default_rng(0).dirichlet(np.full(999, 0.5))
    for v, p in zip(views, (one for row in places for one in row), strict=True):
        far = np.square(p.ys - down)[:, None] + np.square(p.xs - right)
        blob[list(v.slots)] = (np.exp(-far / 0.1) * p.cell[0] * p.cell[1]).ravel()
    blob = np.nan_to_num(blob)
    for image, row in enumerate(places):
        slots = [slot for v in views if v.image == image for slot in v.slots]
        support = support_maps(blob, views, places)[image]
        peak = np.argwhere(support > 0.9 * support.max()).mean(0) / SIDE
        assert np.abs(peak - (down, right)).max() < 0.2, (name, peak)
        assert cosine(read_back(support, row), blob[slots]) > 0.98, name
        if len(row) == 1 and row[0].is_whole():
            support = support_maps(noise, views, places)[image]
            assert cosine(read_back(support, row), noise[slots]) > 0.99, name
