"""Boxes as distributions over image tokens: by hand, by sampling, and over every family's views."""

import math
import statistics

import numpy as np
import pytest

from adapt.attention.layout import layout_of
from adapt.attention.places import Place, places_of
from adapt.preference.boxes import box_target
from tests.attention.test_support import place, view
from tests.support.families import CASES, built, inputs, picture

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
INSIDE = math.erf(1 / math.sqrt(2))  # of a Gaussian within one deviation, 0.6827
NORMAL = statistics.NormalDist()


def target(boxes, views, places, image=0, count=None):
    last = max(slot for one in views for slot in one.slots)
    return box_target(boxes, image, views, places, last + 1 if count is None else count)


def test_a_box_on_a_grid_by_hand():
    """On 2 x 2 patches the box of the first: one deviation of it, then up to the third."""
    found = target([(0.0, 0.0, 0.5, 0.5)], [view((2, 2))], [[place((2, 2))]])
    near, far = INSIDE, NORMAL.cdf(3) - NORMAL.cdf(1)
    line = np.array([near, far]) / (near + far)
    assert found.tolist() == pytest.approx(np.outer(line, line).ravel().tolist(), abs=1e-6)


def test_x_runs_to_the_right_and_y_down():
    found = target([(0.0, 0.0, 0.25, 1.0)], [view((1, 4))], [[place((1, 4))]])
    assert found.argmax() == 0 and found[0] > 0.6
    found = target([(0.0, 0.75, 1.0, 1.0)], [view((4, 1))], [[place((4, 1))]])
    assert found.argmax() == 3 and found[3] > 0.6


@pytest.mark.parametrize("side", [1e-9, 1e-3, 0.2])
def test_the_smallest_box_is_as_large_as_a_patch(side):
    """And never nothing, nor the same everywhere."""
    middle = 3.5 / 6
    box = (middle - side / 2,) * 2 + (middle + side / 2,) * 2
    found = target([box], [view((6, 6))], [[place((6, 6))]]).view(6, 6)
    patch = target([(0.5, 0.5, 4 / 6, 4 / 6)], [view((6, 6))], [[place((6, 6))]]).view(6, 6)
    if side < 1 / 6:
        assert np.allclose(found, patch, atol=1e-6)
    assert found.argmax() == 3 * 6 + 3 and found.sum() == pytest.approx(1)
    assert found.max() > 10 / 36


def test_a_small_box_between_four_patches_belongs_to_all_of_them():
    found = target([(0.499, 0.499, 0.501, 0.501)], [view((4, 4))], [[place((4, 4))]]).view(4, 4)
    assert found[1:3, 1:3].std() < 1e-6 and found[1:3, 1:3].sum() > 0.9


def test_things_of_one_name_count_alike_whatever_their_size():
    small, large = (0.0, 0.0, 0.1, 0.1), (0.5, 0.5, 1.0, 1.0)
    grid = ([view((6, 6))], [[place((6, 6))]])
    both = target([small, large], *grid)
    assert np.allclose(both, (target([small], *grid) + target([large], *grid)) / 2)


def test_a_target_is_what_points_drawn_from_the_mixture_hit():
    boxes = [(0.1, 0.2, 0.4, 0.9), (0.6, 0.0, 0.9, 0.3)]
    generator, points = np.random.default_rng(0), []
    for x0, y0, x1, y1 in boxes:
        middle, half = ((x0 + x1) / 2, (y0 + y1) / 2), ((x1 - x0) / 2, (y1 - y0) / 2)
        drawn = generator.normal(middle, half, (400_000, 2))
        inside = drawn[((drawn >= 0) & (drawn < 1)).all(1)]
        points.append((inside, np.full(len(inside), 0.5 / len(inside))))
    cells = sum(
        np.histogram2d(at[:, 1], at[:, 0], (4, 5), [(0, 1), (0, 1)], weights=weights)[0]
        for at, weights in points
    )
    found = target(boxes, [view((4, 5))], [[place((4, 5))]]).view(4, 5)
    assert np.allclose(found, cells, atol=2e-3)


def test_a_picture_and_its_tiles_have_about_the_same_share():
    """The left tile shows the box, which lies far from the right one."""
    views = [view((2, 2)), view((4, 4), first=5), view((4, 4), first=21)]
    halves = [place((4, 4), columns=(0.0, 0.5)), place((4, 4), columns=(0.5, 1.0))]
    found = target([(0.2, 0.4, 0.3, 0.6)], views, [[place((2, 2)), *halves]])
    assert found[4] == 0, "a separator has nothing"
    shares = [found[list(one.slots)].sum().item() for one in views]
    assert shares == pytest.approx([0.5, 0.5, 0.0], abs=0.06) and sum(shares) == pytest.approx(1)


def test_only_its_own_picture_is_looked_at():
    views = [view((2, 2)), view((2, 2), first=4, image=1)]
    found = target([(0.0, 0.0, 0.5, 0.5)], views, [[place((2, 2))], [place((2, 2))]], image=1)
    assert found[:4].sum() == 0 and found[4:].sum() == pytest.approx(1)


def test_what_no_view_shows_has_no_target():
    cropped = [[place((4, 4), columns=(0.25, 0.75))]]
    grid = [view((4, 4))]
    assert target([(0.0, 0.0, 0.2, 1.0)], grid, cropped) is None
    assert target([], grid, [[place((4, 4))]]) is None
    seen, hidden = (0.3, 0.0, 0.5, 1.0), (0.8, 0.0, 1.0, 1.0)
    assert target([seen, hidden], grid, cropped).equal(target([seen], grid, cropped))
    nothing = Place(np.full(4, np.nan), np.full(4, np.nan), (0.0, 0.0))
    assert target([seen], grid, [[nothing]]) is None
    half = target([(0.0, 0.0, 0.3, 1.0)], grid, cropped).view(4, 4)
    assert half[:, 0].sum() > half[:, 1].sum() and half.sum() == pytest.approx(1)


def test_padding_gets_nothing():
    padded = Place(np.array([np.nan, 0.25, 0.75, np.nan]), np.array([0.5]), (0.5, 1.0))
    found = target([(0.0, 0.0, 1.0, 0.5)], [view((4, 1))], [[padded]])
    assert found[0] == found[3] == 0 and found[1] > found[2] > 0


def pairs_of(views, places, image):
    flat = [(number, where) for number, one in enumerate(places) for where in one]
    return [(v, w) for v, (number, w) in zip(views, flat, strict=True) if number == image]


@pytest.mark.parametrize("name", list(CASES))
def test_every_family_looks_at_the_thing_itself(name):
    """The middle of the cells, weighed by the target, is the middle of the box."""
    model, processor = built(name)
    sizes = list(CASES[name].views)
    layout = layout_of(model, inputs(name, [list(map(picture, sizes))]))
    views, places = layout.of(0), places_of(model.config, processor, sizes)
    box, count = (0.35, 0.45, 0.55, 0.65), int(layout.counts_B[0])
    for image in range(len(sizes)):
        found = box_target([box], image, views, places, count)
        assert found.sum() == pytest.approx(1) and (found >= 0).all()
        assert len(found.unique()) > 2, "never the same everywhere"
        total, middle = 0.0, np.zeros(2)
        for one, where in pairs_of(views, places, image):
            part = found[list(one.slots)].double().numpy().reshape(one.grid)
            total += part.sum()
            middle += np.nansum(part.sum(0) * where.xs), np.nansum(part.sum(1) * where.ys)
        assert total == pytest.approx(1, abs=1e-6), "on its own picture alone"
        assert np.allclose(middle, (0.45, 0.55), atol=0.04)
