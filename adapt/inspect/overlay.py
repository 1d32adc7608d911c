"""The visual anchor of one picture, drawn over it, and what the anchor leaves of the picture."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from adapt import params
from adapt.attention.places import places_of
from adapt.attention.settings import AnchorConfig
from adapt.attention.support import picture_map, support_maps
from adapt.evaluation.heat_maps import colour_scale, draw_heat, draw_pictures
from adapt.evaluation.plots import DPI, save
from adapt.generation.answer import Decoding, answer
from adapt.generation.debias import Debias
from adapt.inspect.probes import QUESTION, read_picture
from adapt.models.load import load_model, load_processor
from adapt.names import figure_text
from adapt.params import InputError
from adapt.preference.guide import enhanced


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

    The debias masks are of noise of the picture's size.
    """
    # 1. The anchor of the first K words, as the stages read it.
    K = config.anchor_tokens
    debias = Debias(model, processor, [question], config, seed=0)
    decoding = Decoding(anchor_tokens=K, max_new_tokens=K, debias=debias)
    answers = answer(model, processor, [[image]], [question], decoding)
    anchor_N = answers.anchor_BN[0]
    # 2. Over the picture, from all views that the model has of it.
    views, places = answers.layout.of(0), places_of(model.config, processor, [image.size])
    ((heat, grid),) = picture_map(anchor_N, views, places)
    (support,) = support_maps(anchor_N, views, places)
    # 3. The enhanced picture of training.
    title = f"first words of the answer: {answers.texts[0]}"
    return _figure(image, enhanced(image, support), heat.reshape(grid), title)


def _figure(image: Image.Image, faded: Image.Image, heat: np.ndarray, title: str) -> Figure:
    figure = Figure(figsize=(11, 4.4), dpi=DPI, layout="constrained")
    FigureCanvasAgg(figure)
    given, anchor, kept = figure.subplots(1, 3)
    draw_pictures(given, [image])
    draw_heat(anchor, [image], [heat], colour_scale([[heat]], 1.0))
    draw_pictures(kept, [faded])
    names = {"picture": given, "visual anchor": anchor, "enhanced image (v+)": kept}
    for name, axes in names.items():
        axes.set_title(figure_text(name), fontsize=11)
    figure.suptitle(figure_text(title), fontsize=12)
    return figure
