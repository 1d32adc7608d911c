"""Where each image token lies in its picture: measured, whatever the processor does to a picture.

Three pictures of one size go through the processor: a black one, a white one, and one whose colours
are coordinates. Where black and white come out alike the processor has padded; elsewhere
(v - black) / (white - black) undoes any normalisation, and its mean over a patch is the place that
the patch was taken from, whatever was resized, cropped and tiled on the way. Families are told
apart only in `adapt/attention/grids.py`, whose rules say which pixels a grid is made of.

Shapes: R rows and K columns of a grid, C channels, P pixels of a cell; a cell becomes one token.
"""

import dataclasses
import functools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from adapt.attention.grids import JOINED, Grid, Part, images_of, patch_size
from adapt.params import InputError

Parts = list[Part]
Size = tuple[int, int]  # (width, height), as PIL has it
KEPT = 4096  # prompts whose places are remembered
MIN_REAL = 0.6  # share of a patch that must be picture: of the most that a patch of its view has


@dataclasses.dataclass(frozen=True, eq=False)
class Place:
    """Where the cells of one view lie in its picture, as shares of its sides, 0 left and top.

    `ys` [R] and `xs` [K] are the centres of the cells, NaN where the processor has padded; `cell`
    is the (height, width) of a cell.
    """

    ys: np.ndarray
    xs: np.ndarray
    cell: tuple[float, float]

    @property
    def grid(self) -> Grid:
        """(rows, columns)."""
        return len(self.ys), len(self.xs)

    def span(self, axis: int) -> tuple[float, float]:
        """From where to where the view reaches, downwards (axis 0) or to the right (axis 1).

        A view that ends less than half a cell from the picture's edge ends at the edge: towers drop
        pixels that fill no patch, and a measurement errs a little. A view without any place reaches
        nowhere, from 0 to 0.

        >>> place = Place(np.array([0.25, 0.7]), np.array([0.375, 0.625]), (0.5, 0.25))
        >>> place.span(0), place.span(1)
        ((0.0, 1.0), (0.25, 0.75))
        """
        centres, side = (self.ys, self.xs)[axis], self.cell[axis]
        real = centres[~np.isnan(centres)]
        if not len(real):
            return 0.0, 0.0
        low, high = float(real.min()) - side / 2, float(real.max()) + side / 2
        return (0.0 if low < side / 2 else low), (1.0 if high > 1 - side / 2 else high)

    def is_whole(self) -> bool:
        """Whether the view covers the whole picture and nothing else."""
        is_padded = np.isnan(self.ys).any() or np.isnan(self.xs).any()
        return not is_padded and self.span(0) == self.span(1) == (0.0, 1.0)


def places_of(config: Any, processor: Any, sizes: Sequence[Size]) -> list[list[Place]]:
    """The places of every picture of one prompt, its views in the order of their tokens.

    Args:
        config: of the model.
        processor: of the model.
        sizes: (width, height) of all pictures of the prompt; some processors treat a picture in
            another way when it shares its prompt.

    Remembered for the latest prompts. Raises InputError for a family that is not known, or whose
    rule leaves open what a grid is made of.
    """
    settings = (config.to_json_string(use_diff=False), processor.image_processor.to_json_string())
    key = (type(processor).__name__, *settings, tuple(sizes))
    return _remembered(_Prompt(key, config, processor))


@dataclasses.dataclass(frozen=True)
class _Prompt:
    """`key`: all that places depend on; with the sizes of the pictures last."""

    key: tuple[Any, ...]
    config: Any = dataclasses.field(compare=False)
    processor: Any = dataclasses.field(compare=False)


@functools.lru_cache(maxsize=KEPT)
def _remembered(prompt: _Prompt) -> list[list[Place]]:
    sizes: tuple[Size, ...] = prompt.key[-1]
    images, pixels = _processed(prompt, sizes)
    patch, last = patch_size(prompt.config), max(len(sizes) - 1, 1)
    places: list[list[Place]] = [[] for _ in sizes]
    for number, same in enumerate(images):
        views = [parts for parts in zip(*same, strict=True) if parts[0].patches()]
        found = [_place(pixels, parts, patch) for parts in views]
        # Of which picture it is was measured as well: a processor may make several images of one
        # picture, as Gemma 3 does when it pans and scans.
        blue = next((blue for _, blue in found if blue is not None), number / last)
        places[round(min(max(blue, 0.0), 1.0) * last)] += [place for place, _ in found]
    return places


def _processed(prompt: _Prompt, sizes: Sequence[Size]) -> tuple[list[tuple[Parts, ...]], Tensor]:
    """Each image's parts in a black, a white and a coloured prompt, and all of their pixels."""
    # 1. Three prompts with pictures of these sizes, on the way that every prompt takes.
    rows = [[Image.new("RGB", size, colour) for size in sizes] for colour in ("black", "white")]
    blues = np.linspace(0, 1, len(sizes))
    rows.append([_coordinates(size, blue) for size, blue in zip(sizes, blues, strict=True)])
    text = [prompt.processor.image_token * len(sizes)] * len(rows)
    options = {"return_tensors": "pt", "add_special_tokens": False}
    inputs = prompt.processor(images=rows, text=text, **options)
    pixels = inputs["pixel_values"].float()
    # 2. A prompt's images follow those of the one before.
    images = _in_order(images_of(prompt.config, inputs), pixels)
    starts = range(0, len(images), len(images) // len(rows))
    thirds = (images[start : start + starts.step] for start in starts)
    return list(zip(*thirds, strict=True)), pixels


def _in_order(images: list[Parts], pixels: Tensor) -> list[Parts]:
    """Parts that do not say what they are made of take the pictures of `pixel_values` in turn."""
    if all(part.pixels is not None for parts in images for part in parts):
        return images
    grids, pictures = sum(map(len, images)), math.prod(pixels.shape[:-3])
    if grids != pictures:
        advice = "its rule in adapt/attention/grids.py has to say what each grid is made of"
        raise InputError(f"{grids} grids of patches from {pictures} pixel values: {advice}")
    turn = iter(np.ndindex(*pixels.shape[:-3]))
    return [[dataclasses.replace(part, pixels=next(turn)) for part in parts] for parts in images]


def _place(
    pixels: Tensor, parts: tuple[Part, Part, Part], patch: Grid
) -> tuple[Place, float | None]:
    """The place of a part, and the blue of its picture where the part has pixels of its own."""
    if parts[0].pixels == JOINED:
        ys, xs = ((np.arange(n) + 0.5) / n for n in parts[0].grid)
        return Place(ys, xs, (1 / len(ys), 1 / len(xs))), None
    return _measured(*(_cells(pixels, part, patch) for part in parts))


def _coordinates(size: Size, blue: float) -> Image.Image:
    """Red is x and green is y, from 0 to 255 over the picture; blue, of 0..1, is alike everywhere.

    >>> np.asarray(_coordinates((2, 1), 1.0)).tolist()
    [[[64, 128, 255], [191, 128, 255]]]
    """
    width, height = size
    x, y = (np.rint((np.arange(n) + 0.5) / n * 255) for n in (width, height))
    pixels = np.empty((height, width, 3), np.uint8)
    pixels[..., 0], pixels[..., 1], pixels[..., 2] = x, y[:, None], round(255 * blue)
    return Image.fromarray(pixels)


def _cells(pixels: Tensor, part: Part, patch: Grid) -> Tensor:
    """The pixels of each cell of a part, [R, K, C, P]."""
    rows, columns = part.grid
    # 1. Patches as rows of a table, each [C, frames and pixels]: a cell's follow each other.
    if isinstance(part.pixels, range):
        flat = pixels[part.pixels.start : part.pixels.stop].unflatten(1, (3, -1))
        return flat.unflatten(0, (rows, columns, -1)).transpose(2, 3).flatten(3)
    # 2. A picture: a cell is some patches high and wide, and what is left over at the end of a side
    #    the tower does not see.
    one = pixels[part.pixels]
    high, wide = (
        size // count // side * side
        for size, count, side in zip(one.shape[1:], part.grid, patch, strict=True)
    )
    one = one[:, : rows * high, : columns * wide].unflatten(2, (columns, wide))
    return one.unflatten(1, (rows, high)).permute(1, 3, 0, 2, 4).flatten(3)


def _measured(black: Tensor, white: Tensor, colours: Tensor) -> tuple[Place, float | None]:
    """The place of a part and the blue of its picture, from [R, K, C, P] of the three pictures.

    No blue where all is padding.
    """
    # 1. Back to 0..1, where there is a picture.
    span = white - black
    most = span.abs().amax((0, 1, 3), keepdim=True)
    is_real = ((span.abs() > most / 2) & (most > 0)).all(2)
    at = ((colours - black) / torch.where(is_real[:, :, None], span, 1.0)).double().numpy()
    # 2. Patches that are picture, and their means.
    weight = is_real[:, :, None].double().numpy()
    share = weight.mean((2, 3))
    real = (share > 0) & (share >= MIN_REAL * share.max())
    mean = (at * weight).sum(3) / np.maximum(weight.sum(3), 1)
    if not real.any():
        ys, xs = (np.full(side, np.nan) for side in real.shape)
        return Place(ys, xs, (0.0, 0.0)), None
    # 3. Rows and columns are straight: x is the mean along a column, y along a row.
    ys, xs = _along(mean[:, :, 1], real), _along(mean[:, :, 0].T, real.T)
    inside = weight[:, :, 0] > 0
    spread = [np.ptp(at[:, :, axis][inside & real[:, :, None]]) for axis in (1, 0)]
    cell = _side(ys, float(spread[0])), _side(xs, float(spread[1]))
    return Place(ys, xs, cell), float(mean[real][:, 2].mean())


def _along(mean: np.ndarray, real: np.ndarray) -> np.ndarray:
    """Mean of each line over its real patches, NaN where it has none."""
    counts = real.sum(1)
    total = np.where(real, mean, 0).sum(1)
    return np.where(counts > 0, total / np.maximum(counts, 1), np.nan)


def _side(centres: np.ndarray, spread: float) -> float:
    """How long a cell is: from centre to centre, or what a single line spreads over."""
    real = centres[~np.isnan(centres)]
    return float(np.median(np.diff(real))) if len(real) > 1 else spread
