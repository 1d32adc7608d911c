"""Figures for a reader who knows neither the code nor the run: curves, before / after panels, the
main numbers.

Colours are Okabe and Ito's, told apart with any colour vision; orange-red is always before, blue
after. Files are the same bytes for the same input: nothing here writes a date, and nothing goes
through pyplot's global state.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

if TYPE_CHECKING:
    import pandas as pd
    from PIL import Image

DPI = 110
BEFORE, AFTER = "#D55E00", "#0072B2"
WRONG = "#C1121F"
HEAT = "YlGnBu"
ARMS = {  # name, colour, line
    "base": ("before", BEFORE, "-"),
    "base_steered": ("before, steered", "#E69F00", "--"),
    "tuned": ("after", AFTER, "-"),
    "tuned_steered": ("after, steered", "#56B4E9", "--"),
}
CURVES = {  # title, axis
    "mass": ("Visual mass", "attention on the image (share, 0 to 1)"),
    "focus": ("Focus", "1 - normalised entropy (0 uniform, 1 one patch)"),
    "amc": ("Anchor amc", "match with the anchor (1 = first tokens)"),
    "responsiveness": ("Responsiveness", "attention moved per token (share, 0 to 1)"),
    "drift": ("Drift from the anchor", "Jensen-Shannon divergence (nats)"),
    "fired": ("Steering", "layers at which it steps in (share, 0 to 1)"),
}
FEWEST = 5  # tokens behind a plotted point; a mean over fewer says nothing


class PanelRow(NamedTuple):
    """One arm of a panel: name, answer with hallucinated words as **word**, and where it looked
    (rows x cols).
    """

    title: str
    marked: str
    heat: np.ndarray


def save(figure: Figure, path: Path) -> None:
    """Write a PNG without the metadata that would make two equal figures differ."""
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, format="png", dpi=DPI, metadata={"Software": None})


def curves_figure(curves: "pd.DataFrame", relative: "pd.DataFrame", signal: str) -> Figure:
    """How `signal` develops along an answer, by position (above) and by relative position (below):
    every arm on the left, grounded against hallucinated words on the right.

    `curves`, `relative`: columns arm, signal, split, position, mean, low, high, n, as
    `adapt/evaluation/degradation.py` has.
    """
    title, axis = CURVES.get(signal, (signal, signal))
    figure = Figure(figsize=(11, 7.6), layout="constrained")
    table = figure.subplots(2, 2, sharey=True)
    scales = (
        (curves, "position in the answer (tokens)"),
        (relative, "position in the answer (0 first, 1 last token)"),
    )
    for (every, kinds), (points, name) in zip(table, scales, strict=True):
        rows = points[(points["signal"] == signal) & (points["n"] >= FEWEST)]
        _overlay(every, kinds, rows)
        every.set_ylabel(axis)
        for axes in (every, kinds):
            axes.set_xlabel(name)
            axes.grid(alpha=0.25)
            axes.spines[["top", "right"]].set_visible(False)
    for axes, name in zip(table[0], ("all tokens of the answer", "object words only"), strict=True):
        axes.set_title(name)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        if axes.lines:
            axes.legend(frameon=False, fontsize=9)
    for axes in table[1]:
        axes.set_xlim(0, 1)
    left_out = f"points of fewer than {FEWEST} tokens left out"
    figure.suptitle(f"{title} along the answer (mean and 95 % band; {left_out})", fontsize=12)
    return figure


def _overlay(every: Any, kinds: Any, rows: "pd.DataFrame") -> None:
    """All arms into `every`; grounded and hallucinated words, before and after, into `kinds`."""
    for arm, (name, colour, line) in ARMS.items():
        _band(every, rows, arm, "all", colour, line, name)
    for arm in ("base", "tuned"):
        name, colour, _ = ARMS[arm]
        _band(kinds, rows, arm, "grounded", colour, "-", f"{name}, grounded")
        _band(kinds, rows, arm, "hallucinated", colour, ":", f"{name}, hallucinated")


def _band(
    axes: Any, rows: "pd.DataFrame", arm: str, split: str, colour: str, line: str, label: str
) -> None:
    points = rows[(rows["arm"] == arm) & (rows["split"] == split)].sort_values("position")
    if points.empty:
        return
    marker = "o" if split != "all" else None
    axes.plot(
        points["position"],
        points["mean"],
        line,
        color=colour,
        label=label,
        lw=2,
        marker=marker,
        ms=4,
    )
    shade = 0.07 if split == "hallucinated" else 0.16  # few words, wide bands
    axes.fill_between(
        points["position"], points["low"], points["high"], color=colour, alpha=shade, lw=0
    )


def before_after_figure(metrics: Mapping[str, float]) -> Figure:
    """The main numbers of all arms as bars; `metrics` are those of `evaluate`, `<arm>/<metric>`."""
    shown = {
        "chair_i": ("CHAIR_i", "absent objects, % of those mentioned", "lower is better"),
        "hal": ("Hal", "answers that hallucinate, %", "lower is better"),
        "cover": ("Cover", "true objects mentioned, %", "higher is better"),
        "mass_late_early": (
            "Late/early visual mass",
            "last third over first third",
            "higher is better",
        ),
    }
    arms = [arm for arm in ARMS if any(key.startswith(f"{arm}/") for key in metrics)]
    figure = Figure(figsize=(12, 3.9), layout="constrained")
    for axes, (key, (title, axis, better)) in zip(
        figure.subplots(1, 4), shown.items(), strict=True
    ):
        values = [metrics.get(f"{arm}/{key}", np.nan) for arm in arms]
        bars = axes.bar(range(len(arms)), values, color=[ARMS[arm][1] for arm in arms], width=0.75)
        digits = 2 if key == "mass_late_early" else 1
        texts = ["" if np.isnan(value) else f"{value:.{digits}f}" for value in values]
        axes.bar_label(bars, texts, padding=2, fontsize=9)
        axes.set_xticks(
            range(len(arms)), [ARMS[arm][0].replace(", ", "\n") for arm in arms], fontsize=8
        )
        axes.set_title(f"{title}\n({better})", fontsize=11)
        axes.set_ylabel(axis, fontsize=9)
        axes.margins(y=0.15)
        axes.spines[["top", "right"]].set_visible(False)
    figure.suptitle(
        "Before and after the retraining, with and without steering, on the test images",
        fontsize=13,
    )
    return figure


def panel(image: "Image.Image", rows: Sequence[PanelRow], path: Path, title: str = "") -> None:
    """One picture, where each arm looked while answering, and the answers with hallucinated words
    in bold red.

    All heat maps of a panel share one scale, so that a paler map means less attention. `title`: the
    question.
    """
    side, head = 3.0, 0.8
    text = 0.21 * (
        1.5 + max([len(row.marked) // 37 for row in rows], default=0)
    )  # inches; about 37 letters a line
    figure = Figure(figsize=((side + 0.1) * (len(rows) + 1) + 0.9, head + side + text), dpi=DPI)
    FigureCanvasAgg(figure)
    grid = figure.add_gridspec(
        2,
        len(rows) + 2,
        height_ratios=[side, text],
        width_ratios=[1] * (len(rows) + 1) + [0.05],
        left=0.01,
        right=0.94,
        bottom=0,
        top=1 - head / (head + side + text),
        wspace=0.06,
        hspace=0.05,
    )
    pixels = np.asarray(image.convert("RGB"))
    picture = figure.add_subplot(grid[0, 0])
    picture.imshow(pixels, interpolation="nearest")
    picture.set_title("picture", fontsize=11)
    picture.axis("off")
    # One patch may draw most of the attention whatever the image shows; it should not make all
    # others look the same.
    scale = Normalize(
        0, max([float(np.quantile(row.heat, 0.97)) for row in rows], default=0.0) or 1.0, clip=True
    )
    for column, row in enumerate(rows, start=1):
        axes = figure.add_subplot(grid[0, column])
        axes.set_title(row.title, fontsize=11)
        heat_map(axes, pixels, row.heat, scale)
        _answer(figure.add_subplot(grid[1, column]), row.marked)
    bar = figure.colorbar(
        ScalarMappable(scale, HEAT), cax=figure.add_subplot(grid[0, -1]), extend="max"
    )
    bar.set_label("attention on the patch", fontsize=9)
    bar.ax.tick_params(labelsize=8)
    figure.suptitle(title or "Where the model looks", fontsize=12)
    save(figure, path)


def heat_map(axes: Any, pixels: np.ndarray, heat: np.ndarray, scale: Normalize) -> None:
    """The picture, pale and grey, under its heat map; one cell per image token."""
    axes.imshow(pixels.mean(axis=2), cmap="gray", vmin=-300, vmax=280, interpolation="nearest")
    axes.axis("off")
    edges = (-0.5, pixels.shape[1] - 0.5, pixels.shape[0] - 0.5, -0.5)
    opacity = 0.15 + 0.6 * np.asarray(scale(heat))
    axes.imshow(heat, cmap=HEAT, norm=scale, alpha=opacity, extent=edges, interpolation="nearest")


def _answer(axes: Any, marked: str, size: float = 10.5) -> None:
    """Write `marked` into `axes` word by word, broken into lines, with what stands between ** bold
    and red.
    """
    axes.axis("off")
    figure = axes.figure
    renderer = figure.canvas.get_renderer()
    box, pixel = axes.get_window_extent(renderer), size * figure.dpi / 72
    x, y = 0.0, 1.0
    for word, is_wrong, is_glued in _words(marked):
        x += 0 if is_glued or x == 0 else 0.3 * pixel / box.width
        style = {"color": WRONG, "weight": "bold"} if is_wrong else {"color": "black"}
        text = axes.text(x, y, word, fontsize=size, va="top", transform=axes.transAxes, **style)
        length = text.get_window_extent(renderer).width / box.width
        if x + length > 1 and not is_glued:
            x, y = 0.0, y - 1.4 * pixel / box.height
            text.set_position((x, y))
        x += length


def _words(marked: str) -> list[tuple[str, bool, bool]]:
    """Words of a marked answer: (word, stood between ** marks, follows the word before it without a
    space).

    >>> _words("a **dog**, a cat")
    [('a', False, False), ('dog', True, False), (',', False, True), ('a', False, False), ('cat', False, False)]
    """
    words, is_open = [], False
    for number, part in enumerate(marked.split("**")):
        for index, word in enumerate(part.split()):
            words.append((word, number % 2 == 1, index == 0 and is_open and not part[0].isspace()))
        is_open = bool(part) and not part[-1].isspace() if part else is_open
    return words
