"""Values of image tokens as a map over the picture: docs/method.md, section 2 (the anchor).

A vector over the tokens depends on how a model cuts pictures up; a map does not. Each token spreads
its value over the cell that it was taken from (`adapt/attention/places.py`), so that what is
mapped is a density, and views that lie over each other, a whole picture and its tiles, add up.

Shapes: N image tokens of a prompt, R rows and K columns of a grid, S = SIDE.
"""

import functools
import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from adapt.attention.grids import Grid
from adapt.attention.layout import View
from adapt.attention.places import Place

Lines = Callable[[Place, int], np.ndarray]
SIDE = 32  # of a map, whatever the shape of the picture
FINER = 8  # lines that are worked out for each line of a map, which is their mean


def support_maps(
    anchor_N: Tensor | Sequence[float], views: Sequence[View], places: Sequence[Sequence[Place]]
) -> list[np.ndarray]:
    """Where each picture of a prompt supports the answer: bytes [S, S], 0 least and 255 most.

    Scaled to 0..255 over each picture alone. A map that is the same everywhere is 255, all is kept,
    or 0 where no token of the picture has a value.

    Args:
        anchor_N: the visual anchor over all image tokens of the prompt, separators included.
        views: of the prompt, `Layout.of`.
        places: of the prompt's pictures, `places_of`.
    """
    values_N = _array(anchor_N)
    return [_scaled(values_N, pairs) for pairs in by_picture(views, places)]


def picture_map(
    values: Tensor | Sequence[float], views: Sequence[View], places: Sequence[Sequence[Place]]
) -> list[tuple[np.ndarray, Grid]]:
    """What a heat map over each picture of a prompt shows, and its (rows, columns).

    The tokens' own values where a picture has one view, which covers it; else a raster of SIDE x
    SIDE whose cells have as much of the value as lies over them.

    Args:
        values: [N], or [..., N] for as many maps at once; the maps are [..., rows * columns].
        views, places: as in `support_maps`.
    """
    values = _array(values)
    maps = []
    for pairs in by_picture(views, places):
        (view, place), *others = pairs
        if not others and place.is_whole():
            maps.append((values[..., list(view.slots)], view.grid))
        else:
            raster = _density(values, pairs, _coarse) / SIDE**2
            flat = raster.reshape(*values.shape[:-1], SIDE * SIDE)  # also of no map at all
            maps.append((flat.astype(np.float32), (SIDE, SIDE)))
    return maps


def _array(values: Any) -> np.ndarray:
    return torch.as_tensor(values).detach().float().cpu().numpy()


def by_picture(
    views: Sequence[View], places: Sequence[Sequence[Place]]
) -> Iterator[list[tuple[View, Place]]]:
    """Each picture's views with their places: both come in the order of the prompt's tokens."""
    counts = [len(one) for one in places]
    assert len(views) == sum(counts), "a place for every view"
    rest = iter(views)
    for count, one in zip(counts, places, strict=True):
        pairs = list(zip(itertools.islice(rest, count), one, strict=True))
        assert all(view.grid == place.grid for view, place in pairs), "measured on another grid"
        yield pairs


def _density(values: np.ndarray, pairs: Sequence[tuple[View, Place]], lines: Lines) -> np.ndarray:
    """Value per area of the picture (its sides are 1), summed over the views: [..., S, S].

    [..., S * FINER, S * FINER] for `_fine` lines.
    """
    total: Any = 0.0
    for view, place in pairs:
        area = place.cell[0] * place.cell[1]
        cells = values[..., list(view.slots)].reshape(*values.shape[:-1], *view.grid)
        total = total + lines(place, 0) @ (cells / area if area else 0 * cells) @ lines(place, 1).T
    return total


@functools.lru_cache(maxsize=4096)
def _fine(place: Place, axis: int) -> np.ndarray:
    """Weights of the rows (axis 0) or columns (axis 1) of a view, [S * FINER, R or K].

    Linear from centre to centre, that of the last centre beyond it, nothing outside of the view.

    >>> place = Place(np.array([0.25, 0.75]), np.array([0.5]), (0.5, 1.0))
    >>> np.round(_fine(place, 0)[[0, 64, 128, 255], 1], 1)
    array([0. , 0. , 0.5, 1. ])
    """
    centres, (low, high) = (place.ys, place.xs)[axis], place.span(axis)
    at = (np.arange(SIDE * FINER) + 0.5) / (SIDE * FINER)
    real = ~np.isnan(centres)
    weights = np.zeros((len(at), len(centres)))
    unit = np.eye(int(real.sum()))
    for column, row in zip(np.flatnonzero(real), unit, strict=True):
        weights[:, column] = np.interp(at, centres[real], row)
    weights[(at < low) | (at > high)] = 0
    return weights


@functools.lru_cache(maxsize=4096)
def _coarse(place: Place, axis: int) -> np.ndarray:
    """The same for the lines of a map, [S, R or K]."""
    return _fine(place, axis).reshape(SIDE, FINER, -1).mean(1)


def _scaled(values_N: np.ndarray, pairs: Sequence[tuple[View, Place]]) -> np.ndarray:
    """The density as bytes. Its extremes lie at single places, which the map's lines may miss."""
    fine = _density(values_N, pairs, _fine)
    low, high = fine.min(), fine.max()
    if high - low <= 1e-6 * high:
        return np.full((SIDE, SIDE), 255 if high > 0 else 0, np.uint8)
    mean = fine.reshape(SIDE, FINER, SIDE, FINER).mean((1, 3))
    return np.rint(255 * (mean - low) / (high - low)).astype(np.uint8)
