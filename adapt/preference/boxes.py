"""Boxes of things as a distribution over the image tokens of a prompt: docs/method.md, section 4.

A thing that a box holds is a Gaussian with the middle of the box as its mean and half of the box's
sides as its deviations, and things of one name are a mixture of equal parts: the target of
attention in EASE (arXiv 2605.30912). An image token has what of the mixture lies over its cell
(`adapt/attention/places.py`). The integral, and not the density at the middle of the cell, so that
a box between four middles has its place as well [ours].

Each look at a picture has about the same share: the whole of it as much as all of its tiles
together.

Shapes: N image tokens of a prompt, R rows and K columns of a grid.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from adapt.attention.layout import View
from adapt.attention.places import Place
from adapt.attention.support import by_picture
from adapt.pairs.record import Box


def box_target(
    boxes: Sequence[Box],
    image: int,
    views: Sequence[View],
    places: Sequence[Sequence[Place]],
    count: int,
) -> Tensor | None:
    """Where attention to the things in these boxes should lie: [N] fp32, sum 1.

    None where no view shows any of them: there are no boxes, or the processor has cropped them off.

    Args:
        boxes: of one name's things, x0 < x1 and y0 < y1 in 0..1.
        image: the picture that they lie in, counted from 0.
        views: of the prompt, `Layout.of`. places: of the prompt's pictures, `places_of`.
        count: N, separators included, which have nothing.
    """
    pairs = [*by_picture(views, places)][image]
    parts = []
    for box in boxes:
        if not any(_shows(place, box) for _, place in pairs):
            continue  # the tails of a Gaussian would still reach what is seen
        # 1. What lies over each cell of each view.
        part_N = np.zeros(count)
        for view, place in pairs:
            down, right = (_over(place, box, axis) for axis in (0, 1))
            part_N[list(view.slots)] = np.outer(down, right).ravel()
        # 2. The rest lies outside of what is seen: all things in sight count alike.
        if part_N.any():  # cells of no size, of a picture one pixel high, have nothing over them
            parts.append(part_N / part_N.sum())
    return torch.from_numpy(np.mean(parts, 0)).float() if parts else None


def _sides(box: Box, axis: int) -> tuple[float, float]:
    """From where to where a box reaches, downwards (axis 0) or to the right (axis 1)."""
    return box[1 - axis], box[3 - axis]


def _shows(place: Place, box: Box) -> bool:
    """Whether some of the box lies in the view."""
    reaches = [(*place.span(axis), *_sides(box, axis)) for axis in (0, 1)]
    return all(low < end and start < high for low, high, start, end in reaches)


def _over(place: Place, box: Box, axis: int) -> np.ndarray:
    """How much of a box's Gaussian lies over each row (axis 0) or column (axis 1) of a view.

    Its deviation is at least half a cell: the smallest thing is as large as a patch.

    >>> place = Place(np.array([0.25, 0.75]), np.array([0.5]), (0.5, 1.0))
    >>> np.round(_over(place, (0.0, 0.0, 1.0, 0.5), 0), 4).tolist()  # one deviation, and two more
    [0.6827, 0.1573]
    """
    centres, side = (place.ys, place.xs)[axis], place.cell[axis]
    start, end = _sides(box, axis)
    deviation = max(end - start, side) / 2
    edges = (centres[:, None] + (-side / 2, side / 2) - (start + end) / 2) / deviation
    below = torch.special.ndtr(torch.from_numpy(edges)).numpy()
    return np.nan_to_num(below[:, 1] - below[:, 0])  # padding has no place
