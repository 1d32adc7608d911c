"""The visual anchor of one picture, drawn: the picture, its patches by support, and what the anchor
leaves of it.
"""

from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from adapt.attention.anchor import enhanced, pixel_mask
from adapt.attention.settings import AnchorConfig
from adapt.evaluation.plots import DPI, heat_map
from adapt.params import InputError

if TYPE_CHECKING:
    from PIL import Image


def overlay(
    model: Any, processor: Any, image: "Image.Image", question: str, config: AnchorConfig
) -> Figure:
    """Three pictures side by side: as given, under the anchor, and faded to white where the anchor
    does not support it.

    Where an image becomes several grids, the one of the whole picture is shown; a family that crops
    pictures looks at a part of what is drawn. The debias mask comes from noise of the picture's
    size.

    Raises InputError where no grid lies over the whole picture.
    """
    import torch

    from adapt.generation.answer import answer, answer_anchors, debias_masks

    anchor_tokens = config.anchor_tokens
    masks = debias_masks(
        model,
        processor,
        [question],
        image.size,
        count=config.noise_images,
        anchor_tokens=anchor_tokens,
        seed=0,
    )
    answers = answer(
        model,
        processor,
        [image],
        [question],
        anchor_tokens=anchor_tokens,
        max_new_tokens=anchor_tokens,
        debias_N=masks,
    )
    view = next((view for view in answers.layout.views if view.kind == "whole"), None)
    if view is None:
        raise InputError("no grid of this model lies over the whole picture, only tiles of it")
    columns = answers.layout.columns_BN[0].tolist()
    anchor_1M = answer_anchors(answers, anchor_tokens, masks)[
        :, [columns.index(column) for column in view.columns]
    ].float()
    pixels_1CXY = (
        torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)[None].float() / 255
    )
    mask_11XY = pixel_mask(anchor_1M.cpu(), view.grid, tuple(pixels_1CXY.shape[2:]))
    faded_1CXY = enhanced(pixels_1CXY, mask_11XY, torch.ones(3))
    heat = anchor_1M[0].reshape(view.grid).cpu().numpy()
    return _figure(
        pixels_1CXY[0], faded_1CXY[0], heat, f"first words of the answer: {answers.texts[0]}"
    )


def _figure(pixels_CXY: Any, faded_CXY: Any, heat: np.ndarray, title: str) -> Figure:
    figure = Figure(figsize=(11, 4.4), dpi=DPI, layout="constrained")
    FigureCanvasAgg(figure)
    given, anchor, kept = figure.subplots(1, 3)
    given.imshow(pixels_CXY.permute(1, 2, 0).numpy(), interpolation="nearest")
    heat_map(
        anchor,
        255 * pixels_CXY.permute(1, 2, 0).numpy(),
        heat,
        Normalize(0, float(heat.max()) or 1.0, clip=True),
    )
    kept.imshow(faded_CXY.permute(1, 2, 0).numpy(), interpolation="nearest")
    for axes, name in (
        (given, "picture"),
        (anchor, "visual anchor"),
        (kept, "enhanced image (v+)"),
    ):
        axes.set_title(name, fontsize=11)
        axes.axis("off")
    figure.suptitle(title, fontsize=12)
    return figure
