"""The pictures of a row side by side, and over each of them where a model looked."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.colors import Normalize
from PIL import Image

HEAT = "YlGnBu"
GAP = 0.04  # between pictures, of their height

Box = tuple[float, float, float, float]  # left, right, bottom, top, in pixels


def boxes(images: Sequence[Image.Image]) -> list[Box]:
    """Where pictures stand that are scaled to the height of the highest, each right of the last.

    >>> boxes([Image.new("L", (20, 10)), Image.new("L", (5, 5))])
    [(-0.5, 19.5, 9.5, -0.5), (19.9, 29.9, 9.5, -0.5)]
    """
    height = max(image.height for image in images)
    left, found = -0.5, []
    for image in images:
        right = left + image.width * height / image.height
        found.append((left, right, height - 0.5, -0.5))
        left = right + GAP * height
    return found


def draw_pictures(axes: Any, images: Sequence[Image.Image]) -> None:
    """The pictures as they are."""
    for image, box in zip(images, boxes(images), strict=True):
        axes.imshow(_pixels(image), extent=box, interpolation="nearest")
    _frame(axes, images)


def draw_heat(
    axes: Any, images: Sequence[Image.Image], heats: Sequence[np.ndarray], scale: Normalize
) -> None:
    """The pictures, pale and grey, each under its heat map [rows, columns]."""
    for image, heat, box in zip(images, heats, boxes(images), strict=True):
        grey: dict[str, Any] = {"cmap": "gray", "vmin": -300, "vmax": 280}
        axes.imshow(_pixels(image).mean(axis=2), extent=box, interpolation="nearest", **grey)
        opacity = 0.15 + 0.6 * np.asarray(scale(heat))
        colours: dict[str, Any] = {"cmap": HEAT, "norm": scale, "alpha": opacity}
        axes.imshow(heat, extent=box, interpolation="nearest", **colours)
    _frame(axes, images)


def comparable(heats: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Maps [..., rows, columns] of a row's pictures in one unit, as given where all are alike.

    Cells of different sizes hold different amounts; such maps become attention per area of the
    picture, 1 all over it where all of the attention lies evenly on it.
    """
    if len({heat.shape[-2:] for heat in heats}) == 1:
        return list(heats)
    return [heat * heat.shape[-2] * heat.shape[-1] for heat in heats]


def colour_scale(groups: Sequence[Sequence[np.ndarray]], quantile: float) -> Normalize:
    """From 0 to the largest of the groups' quantiles over all of their cells.

    One patch may draw most of the attention whatever the image shows; a scale up to it would make
    all others look the same.
    """
    cells = [np.concatenate([heat.ravel() for heat in heats]) for heats in groups]
    most = max([float(np.quantile(values, quantile)) for values in cells], default=0.0)
    return Normalize(0, most or 1.0, clip=True)


def _pixels(image: Image.Image) -> np.ndarray:
    return np.asarray(image.convert("RGB"))


def _frame(axes: Any, images: Sequence[Image.Image]) -> None:
    found = boxes(images)
    axes.set(xlim=(found[0][0], found[-1][1]), ylim=found[0][2:])
    axes.axis("off")
