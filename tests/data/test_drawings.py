"""Drawings: every kind fills its square, in its colour, with a tight box, and no two kinds look
alike.
"""

from itertools import combinations

import numpy as np
import pytest

from adapt.data.drawings import DRAWINGS, sprite
from adapt.data.pen import COLOURS

CELL = 16


def _alpha(kind: str, side: float = 16.0) -> np.ndarray:
    drawing, _ = sprite(kind, "red", CELL, side, (CELL - side) / 2, (CELL - side) / 2)
    return np.asarray(drawing)[..., 3] / 255


@pytest.mark.parametrize("kind", DRAWINGS)
def test_box_is_tight_and_inside_the_square(kind: str) -> None:
    drawing, (x0, y0, x1, y1) = sprite(kind, "blue", CELL, 12.0, 2.0, 3.0)
    assert 2 - 0.2 <= x0 < x1 <= 14 + 0.2 and 3 - 0.2 <= y0 < y1 <= 15 + 0.2
    rows, columns = np.nonzero(np.asarray(drawing)[..., 3])
    # A pixel that is touched at all has some opacity, so the box ends in the outermost visible
    # pixels.
    assert columns.min() == int(x0) and columns.max() == int(np.ceil(x1)) - 1
    assert rows.min() == int(y0) and rows.max() == int(np.ceil(y1)) - 1


@pytest.mark.parametrize("kind", DRAWINGS)
def test_the_largest_coloured_part_has_the_named_colour(kind: str) -> None:
    for name, colour in COLOURS.items():
        pixels = np.asarray(sprite(kind, name, CELL, 15.0, 0.5, 0.5)[0]).astype(int)
        solid = pixels[pixels[..., 3] > 200][:, :3]
        near = {n: int((np.abs(solid - np.array(c)).max(1) < 40).sum()) for n, c in COLOURS.items()}
        assert max(near, key=lambda n: near[n]) == name and near[name] >= 8, (kind, colour, near)


def test_outlines_differ() -> None:
    masks = {kind: _alpha(kind) for kind in DRAWINGS}
    for one, other in combinations(masks, 2):
        overlap = (
            np.minimum(masks[one], masks[other]).sum() / np.maximum(masks[one], masks[other]).sum()
        )
        inside = one in ("clock", "ball") and other in (
            "clock",
            "ball",
        )  # both round: told apart by what is inside
        assert overlap < (1.01 if inside else 0.85), (one, other, overlap)


def test_same_arguments_same_pixels() -> None:
    first, second = (sprite("cat", "pink", CELL, 13.3, 1.1, 0.7)[0].tobytes() for _ in range(2))
    assert first == second
