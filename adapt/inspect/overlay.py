"""The visual anchor of one picture, drawn over it, and what the anchor leaves of the picture.

Shapes: M patches of the drawn grid, C channels, X x Y pixels.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from PIL import Image

from adapt import params
from adapt.attention.anchor import enhanced, pixel_mask
from adapt.attention.settings import AnchorConfig
from adapt.evaluation.plots import DPI, heat_map, save
from adapt.generation.answer import Decoding, answer, answer_anchors
from adapt.generation.debias import debias_masks
from adapt.inspect.probes import QUESTION, read_picture
from adapt.models.load import load_model, load_processor
from adapt.params import InputError


def draw(source: str, picture: Path | None, path: Path, facts: Mapping[str, Any]) -> None:
    """Write the overlay; the working folder's params.yaml says what the anchor is read from.

    `facts`: the report of the probes. Raises InputError where they found no way to read attention.
    """
    capture = facts["capture"]
    if not (facts["weights"] and capture["supported"]):
        reason = capture["why"] or "there are no weights here to draw an anchor with"
        raise InputError(f"--overlay: {reason}")
    config = params.load(params.read(Path("params.yaml")), "anchor", AnchorConfig)
    folder, image = Path(source).expanduser(), read_picture(picture)
    figure = overlay(load_model(folder), load_processor(folder), image, QUESTION, config)
    try:
        save(figure, path)
    except (OSError, ValueError) as error:
        raise InputError(f"--overlay {path}: {error}") from None


def overlay(
    model: Any, processor: Any, image: Image.Image, question: str, config: AnchorConfig
) -> Figure:
    """Three pictures side by side: as given, under the anchor, and faded to white by the anchor.

    Where an image becomes several grids, the one of the whole picture is shown; a family that crops
    pictures looks at a part of what is drawn. The debias mask is of noise of the picture's size.
    Raises InputError where no grid lies over the whole picture.
    """
    # 1. The anchor of the first K words, as the stages read it.
    K = config.anchor_tokens
    debias = debias_masks(model, processor, [question], image.size, config, seed=0)
    decoding = Decoding(anchor_tokens=K, max_new_tokens=K, debias=debias)
    answers = answer(model, processor, [[image]], [question], decoding)
    # 2. The part of it that lies on the grid of the whole picture.
    view = next((view for view in answers.layout.views if view.kind == "whole"), None)
    if view is None:
        raise InputError("no grid of this model lies over the whole picture, only tiles of it")
    columns = answers.layout.columns_BN[0].tolist()
    slots = [columns.index(column) for column in view.columns]
    anchor_1M = answer_anchors(answers, K, debias)[:, slots].float().cpu()
    # 3. As pixels: the enhanced image of training, in the picture's own colours.
    pixels_XYC = np.array(image.convert("RGB"))
    pixels_1CXY = torch.from_numpy(pixels_XYC).permute(2, 0, 1)[None].float() / 255
    mask_11XY = pixel_mask(anchor_1M, view.grid, (image.height, image.width))
    faded_XYC = enhanced(pixels_1CXY, mask_11XY, torch.ones(3))[0].permute(1, 2, 0).numpy()
    heat = anchor_1M[0].reshape(view.grid).numpy()
    return _figure(pixels_XYC, faded_XYC, heat, f"first words of the answer: {answers.texts[0]}")


def _figure(pixels_XYC: np.ndarray, faded_XYC: np.ndarray, heat: np.ndarray, title: str) -> Figure:
    figure = Figure(figsize=(11, 4.4), dpi=DPI, layout="constrained")
    FigureCanvasAgg(figure)
    given, anchor, kept = figure.subplots(1, 3)
    given.imshow(pixels_XYC, interpolation="nearest")
    heat_map(anchor, pixels_XYC, heat, Normalize(0, float(heat.max()) or 1.0, clip=True))
    kept.imshow(faded_XYC, interpolation="nearest")
    names = {"picture": given, "visual anchor": anchor, "enhanced image (v+)": kept}
    for name, axes in names.items():
        axes.set_title(name, fontsize=11)
        axes.axis("off")
    figure.suptitle(title, fontsize=12)
    return figure
