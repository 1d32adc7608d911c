"""Plots for a reader who knows neither the code nor the run: curves, panels, the main numbers.

Colours are Okabe and Ito's, told apart with any colour vision; orange-red is always before, blue
after. Files are the same bytes for the same input: nothing here writes a date, and nothing goes
through pyplot's global state.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from PIL import Image

from adapt.evaluation.degradation import MIN_TOKENS
from adapt.evaluation.heat_maps import HEAT, colour_scale, comparable, draw_heat, draw_pictures
from adapt.metrics.headline import ARMS, HEADLINES
from adapt.names import figure_text

DPI = 110
BEFORE, AFTER = "#D55E00", "#0072B2"
WRONG = "#C1121F"
STYLES = {  # of each arm: colour, line
    "base": (BEFORE, "-"),
    "base_steered": ("#E69F00", "--"),
    "tuned": (AFTER, "-"),
    "tuned_steered": ("#56B4E9", "--"),
}
CURVES = {  # title, axis
    "mass": ("Visual mass", "attention on the image (share, 0 to 1)"),
    "focus": ("Focus", "1 - normalised entropy (0 uniform, 1 one patch)"),
    "amc": ("S_AMC", "match with the anchor (1 = as in the first tokens)"),
    "responsiveness": ("Responsiveness", "attention moved per token (share, 0 to 1)"),
    "drift": ("Drift from the anchor", "Jensen-Shannon divergence (nats)"),
    "fired": ("Steering", "layers at which it steps in (share, 0 to 1)"),
}


class PanelRow(NamedTuple):
    """One arm: name, answer with hallucinated words as **word**, and where it looked.

    `heats` has a map [rows, columns] for each picture of the row.
    """

    title: str
    marked: str
    heats: Sequence[np.ndarray]


def save(figure: Figure, path: Path) -> None:
    """Write a PNG without the metadata that would make two equal figures differ."""
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, format="png", dpi=DPI, metadata={"Software": None})


def csv(table: pd.DataFrame, path: Path) -> None:
    """Write a table with six digits a number: what lies behind a plot."""
    table.to_csv(path, index=False, float_format="%.6g", lineterminator="\n")


def curves_figure(curves: pd.DataFrame, relative: pd.DataFrame, signal: str) -> Figure:
    """`signal` along an answer, by position (above) and by relative position (below).

    Every arm on the left, grounded against hallucinated words on the right. `curves`, `relative`:
    the tables of `adapt/evaluation/degradation.py`.
    """
    title, axis = CURVES.get(signal, (signal, signal))
    figure = Figure(figsize=(11, 7.6), layout="constrained")
    table = figure.subplots(2, 2, sharey=True)
    scales = ((curves, "tokens"), (relative, "0 first, 1 last token"))
    for (every, kinds), (points, scale) in zip(table, scales, strict=True):
        rows = points[points["signal"] == signal]
        _overlay(every, kinds, rows)
        every.set_ylabel(figure_text(axis))
        for axes in (every, kinds):
            axes.set_xlabel(f"position in the answer ({figure_text(scale)})")
            axes.grid(alpha=0.25)
            axes.spines[["top", "right"]].set_visible(False)
    for axes, name in zip(table[0], ("all tokens of the answer", "object words only"), strict=True):
        axes.set_title(figure_text(name))
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        if axes.lines:
            axes.legend(frameon=False, fontsize=9)
    for axes in table[1]:
        axes.set_xlim(0, 1)
    left_out = f"points of fewer than {MIN_TOKENS} tokens or answers left out"
    heading = f"{title} along the answer (mean and 95 % band; {left_out})"
    figure.suptitle(figure_text(heading), fontsize=12)
    return figure


def _overlay(every: Any, kinds: Any, rows: pd.DataFrame) -> None:
    """All arms into `every`; grounded and hallucinated words, before and after, into `kinds`."""
    for arm, name in ARMS.items():
        colour, line = STYLES[arm]
        _band(every, rows[(rows.arm == arm) & (rows.split == "all")], name, color=colour, ls=line)
    for arm in ("base", "tuned"):
        for split, line in (("grounded", "-"), ("hallucinated", ":")):
            points = rows[(rows.arm == arm) & (rows.split == split)]
            style = {"color": STYLES[arm][0], "ls": line, "marker": "o", "ms": 4}
            _band(kinds, points, f"{ARMS[arm]}, {split}", **style)


def _band(axes: Any, points: pd.DataFrame, label: str, **style: Any) -> None:
    """A mean and its 95 % band; nothing where there are no points."""
    if points.empty:
        return
    points = points.sort_values("position")
    position, low, high = points["position"], points["low"], points["high"]
    axes.plot(position, points["mean"], label=figure_text(label), lw=2, **style)
    shade = 0.07 if style["ls"] == ":" else 0.16  # few hallucinated words: wide bands
    axes.fill_between(position, low, high, color=style["color"], alpha=shade, lw=0)


def before_after_figure(metrics: Mapping[str, float]) -> Figure | None:
    """The main numbers of all arms as bars; `metrics` are those of `evaluate`, `<arm>/<metric>`.

    A number that was not measured has no place; None where none was.
    """
    arms = [arm for arm in ARMS if any(key.startswith(f"{arm}/") for key in metrics)]
    there = [of for of in HEADLINES if any(f"{arm}/{of.key}" in metrics for arm in arms)]
    if not there:
        return None
    names = [figure_text(ARMS[arm].replace(", ", "\n")) for arm in arms]
    colours = [STYLES[arm][0] for arm in arms]
    figure = Figure(figsize=(3 * len(there), 3.9), layout="constrained")
    for axes, number in zip(figure.subplots(1, len(there), squeeze=False)[0], there, strict=True):
        values = [metrics.get(f"{arm}/{number.key}", np.nan) for arm in arms]
        bars = axes.bar(range(len(arms)), values, color=colours, width=0.75)
        texts = ["" if np.isnan(value) else f"{value:.{number.digits}f}" for value in values]
        axes.bar_label(bars, texts, padding=2, fontsize=9)
        axes.set_xticks(range(len(arms)), names, fontsize=8)
        axes.set_title(figure_text(f"{number.name}\n({number.better} is better)"), fontsize=11)
        axes.set_ylabel(figure_text(number.axis), fontsize=9)
        axes.margins(y=0.15)
        axes.spines[["top", "right"]].set_visible(False)
    title = "Before and after the retraining, with and without steering, on the test images"
    figure.suptitle(figure_text(title if len(there) > 2 else "Before and after"), fontsize=13)
    return figure


def panel(
    images: Sequence[Image.Image], rows: Sequence[PanelRow], path: Path, title: str = ""
) -> None:
    """A row's pictures, where each arm looked, and the answers with hallucinated words in bold red.

    All heat maps share one scale: a paler map means less attention. `title`: the question.
    """
    # 1. Room for the pictures and the longest answer, at about 37 letters a line of 3 inches; all
    #    lengths are inches.
    side, head = 3.0, 0.8
    wide = side * (1 + min(len(images) - 1, 3) / 2)
    letters = int(37 * wide / side)
    lines = max([len(row.marked) // letters for row in rows], default=0)
    text = 0.21 * (1.5 + lines)
    height = head + side + text
    figure = Figure(figsize=((wide + 0.1) * (len(rows) + 1) + 0.9, height), dpi=DPI)
    FigureCanvasAgg(figure)
    edges = {"left": 0.01, "right": 0.94, "bottom": 0, "top": 1 - head / height}
    widths = [1] * (len(rows) + 1) + [0.05]
    gaps = {"wspace": 0.06, "hspace": 0.05}
    sizes = {"height_ratios": [side, text], "width_ratios": widths}
    grid = figure.add_gridspec(2, len(widths), **sizes, **gaps, **edges)
    # 2. The pictures as they are.
    axes = figure.add_subplot(grid[0, 0])
    draw_pictures(axes, images)
    axes.set_title("picture" if len(images) == 1 else "pictures", fontsize=11)
    # 3. Each arm's heat maps above its answer.
    heats = [comparable(row.heats) for row in rows]
    scale = colour_scale(heats, 0.97)
    for column, row in enumerate(rows, start=1):
        axes = figure.add_subplot(grid[0, column])
        axes.set_title(figure_text(row.title), fontsize=11)
        draw_heat(axes, images, heats[column - 1], scale)
        _answer(figure.add_subplot(grid[1, column]), row.marked)
    _scale_bar(figure, figure.add_subplot(grid[0, -1]), scale, rows)
    figure.suptitle(figure_text(title or "Where the model looks"), fontsize=12)
    save(figure, path)


def _scale_bar(figure: Figure, axes: Any, scale: Normalize, rows: Sequence[PanelRow]) -> None:
    shapes = {heat.shape for row in rows for heat in row.heats}
    unit = "on the patch" if len(shapes) == 1 else "per area (1: all of it, evenly)"
    bar = figure.colorbar(ScalarMappable(scale, HEAT), cax=axes, extend="max")
    bar.set_label(figure_text(f"attention {unit}"), fontsize=9)
    bar.ax.tick_params(labelsize=8)


def _answer(axes: Any, marked: str, size: float = 10.5) -> None:
    """Write `marked` word by word, broken into lines; what stands between ** is bold and red."""
    axes.axis("off")
    renderer = axes.figure.canvas.get_renderer()
    box, pixel = axes.get_window_extent(renderer), size * axes.figure.dpi / 72
    x, y = 0.0, 1.0
    for word, is_wrong, is_glued in _words(marked):
        x += 0 if is_glued or x == 0 else 0.3 * pixel / box.width
        style = {"color": WRONG, "weight": "bold"} if is_wrong else {"color": "black"}
        place = {"fontsize": size, "va": "top", "transform": axes.transAxes}
        text = axes.text(x, y, figure_text(word), **place, **style)
        length = text.get_window_extent(renderer).width / box.width
        if x + length > 1 and not is_glued:
            x, y = 0.0, y - 1.4 * pixel / box.height
            text.set_position((x, y))
        x += length


def _words(marked: str) -> list[tuple[str, bool, bool]]:
    """Words of a marked answer: (word, stood between ** marks, follows without a space).

    >>> _words("a **dog**, a")
    [('a', False, False), ('dog', True, False), (',', False, True), ('a', False, False)]
    """
    words, is_open = [], False
    for number, part in enumerate(marked.split("**")):
        for index, word in enumerate(part.split()):
            words.append((word, number % 2 == 1, index == 0 and is_open and not part[0].isspace()))
        is_open = bool(part) and not part[-1].isspace() if part else is_open
    return words
