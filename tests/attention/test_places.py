"""Places against the painting test's own geometry, and what processors crop, pad and cut up."""

import copy
import dataclasses

import numpy as np
import pytest

from adapt.attention import grids, places
from adapt.attention.layout import layout_of
from adapt.attention.places import Place, places_of
from adapt.params import InputError
from tests.support.families import CASES, boards, built, inputs, picture

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


def expected(picture_side, frame_side, count):
    """Centres of `count` cells over a frame in whose middle the picture lies, as shares of it."""
    at = (np.arange(count) + 0.5) * frame_side / count - (frame_side - picture_side) / 2
    return at / picture_side


def joined(parts):
    return np.concatenate(parts)


@pytest.mark.parametrize("name", list(CASES))
@pytest.mark.parametrize("together", [False, True])
def test_a_cell_is_where_painting_finds_it(name, together):
    """`test_families.py` paints these centres and sees which token changes."""
    model, processor = built(name)
    for size in CASES[name].views:
        row = [size, size] if together else [size]
        views = [v for v in layout_of(model, inputs(name, [list(map(picture, row))])).views]
        found = places_of(model.config, processor, row)
        assert len(found) == len(row)
        assert [p.grid for one in found for p in one] == [v.grid for v in views]
        padded = together and bool(CASES[name].shared)
        frame = (max(size),) * 2 if padded else size
        for one in found:
            for board in boards(name, size, one):
                xs, ys = joined([p.xs for p in board[0]]), joined([line[0].ys for line in board])
                for centres, side, whole in zip((xs, ys), size, frame, strict=True):
                    want = expected(side, whole, len(centres))
                    tolerance = 0.5 / 255 + 0.5 / side
                    real = ~np.isnan(centres)
                    assert np.abs(centres - want)[real].max() < tolerance
                    half = 0.5 * whole / side / len(centres)
                    inside = np.minimum(want + half, 1) - np.maximum(want - half, 0)
                    assert (real == (inside >= 0.6 * 2 * half)).all(), "padding has no place"


def test_a_centre_crop_is_found():
    model, processor = built("llava")
    processor = copy.deepcopy(processor)
    processor.image_processor.do_center_crop = True
    processor.image_processor.size = {"shortest_edge": 32}
    ((place,),) = places_of(model.config, processor, [(128, 96)])
    # 128 x 96 shrinks to 43 x 32 (42.67), of which the middle 32 columns are kept.
    assert np.allclose(place.xs, 0.5 + (np.arange(4) - 1.5) * 8 / 42.67, atol=0.01)
    assert np.allclose(place.ys, [0.125, 0.375, 0.625, 0.875], atol=0.003)
    assert place.span(0) == (0.0, 1.0) and not place.is_whole()
    assert place.span(1) == pytest.approx((0.125, 0.875), abs=0.01)
    ((whole,),) = places_of(model.config, built("llava")[1], [(128, 96)])
    assert whole.is_whole()


def test_pixels_that_fill_no_patch_are_not_seen():
    """As of 384 pixels in patches of 14: here 35 in patches of 8, of which 3 are left over."""
    model, processor = built("llava")
    processor = copy.deepcopy(processor)
    processor.image_processor.size = {"height": 35, "width": 35}
    ((place,),) = places_of(model.config, processor, [(64, 48)])
    assert np.allclose(place.xs, (np.arange(4) + 0.5) * 8 / 35, atol=0.005)
    assert place.is_whole()


def test_crops_of_one_picture_are_its_views():
    model, processor = built("gemma3")
    processor = copy.deepcopy(processor)
    pictures = processor.image_processor
    pictures.do_pan_and_scan, pictures.pan_and_scan_min_crop_size = True, 16
    pictures.pan_and_scan_max_num_crops, pictures.pan_and_scan_min_ratio_to_activate = 2, 1.2
    options = {key: getattr(pictures, key) for key in pictures.to_dict() if "pan_and" in key}
    processor.images_kwargs = processor.images_kwargs | options
    first, second = places_of(model.config, processor, [(64, 32), (32, 32)])
    assert len(first) == 3 and len(second) == 1
    assert [p.span(1) for p in first] == [
        (0.0, 1.0),
        pytest.approx((0.0, 0.5), abs=0.01),
        pytest.approx((0.5, 1.0), abs=0.01),
    ]


def test_a_rule_that_does_not_say_what_a_grid_is_made_of_is_told_so(monkeypatch):
    model, processor = built("llava_next")
    rule = grids.FAMILIES["llava_next"].rule

    def silent(config, batch):
        return [
            [dataclasses.replace(part, pixels=None) for part in one] for one in rule(config, batch)
        ]

    monkeypatch.setitem(grids.FAMILIES, "llava_next", grids.Family("silent", silent))
    with pytest.raises(InputError, match="6 grids of patches from 15 pixel values: its rule in"):
        places_of(model.config, processor, [(32, 17)])


def test_a_picture_thinner_than_a_patch_has_places_all_the_same():
    model, processor = built("llava_onevision")
    for place in (one[0] for one in places_of(model.config, processor, [(64, 4), (64, 4)])):
        real = ~np.isnan(place.ys)
        assert real.any() and place.ys[real].mean() == pytest.approx(0.5, abs=0.15)
        assert place.cell[0] > 0


def test_a_view_of_nothing_reaches_nowhere():
    nothing = Place(np.full(2, np.nan), np.full(2, np.nan), (0.0, 0.0))
    assert nothing.span(0) == nothing.span(1) == (0.0, 0.0) and not nothing.is_whole()


def test_what_is_measured_is_remembered():
    model, processor = built("llava")
    first = places_of(model.config, processor, [(48, 31)])
    assert places_of(model.config, copy.deepcopy(processor), [(48, 31)]) is first
    assert places_of(model.config, processor, [(31, 48)]) is not first
    assert places.KEPT >= 1000
