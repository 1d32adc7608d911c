"""Plots of the early warning: what warns how well, whether its risks are true, one answer in full.

The style is that of `adapt/evaluation/plots.py`: colours that any eye tells apart, the same bytes
for the same input.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from PIL import Image

from adapt.evaluation import early_warning
from adapt.evaluation.degradation import LABELS
from adapt.evaluation.heat_maps import colour_scale, comparable, draw_heat, draw_pictures
from adapt.evaluation.plots import AFTER, BEFORE, WRONG
from adapt.metrics import detection
from adapt.names import figure_text

GREY = "#8A8A8A"
SCORES = {  # name, colour
    "attention_probability": ("attention + probability", "#009E73"),
    "attention": ("attention (five signals)", AFTER),
    "mass": ("visual mass", "#56B4E9"),
    "focus": ("focus", "#56B4E9"),
    "amc": ("S_AMC with the anchor", "#56B4E9"),
    "responsiveness": ("responsiveness", "#56B4E9"),
    "drift": ("drift", "#56B4E9"),
    "svar": ("SVAR, middle layers (baseline)", BEFORE),
    "probability": ("token probability (baseline)", "#E69F00"),
    "position": ("position alone (control)", GREY),
}
LINES = ("attention_probability", "attention", "svar", "probability", "position")
COLUMNS, MOST = 8, 31  # of the strip, half as many of several pictures; tokens beside them
HEAD, ROW = 0.85, 1.95  # inches: of the titles, of a row of the strip


@dataclass(frozen=True)
class Trace:
    """One description token by token: pieces of its text, labels, and where each of them looked.

    `heats` has attention [T, rows, columns] for each picture of the row.
    """

    pieces: list[str]
    labels: list[str]
    heats: list[np.ndarray]

    @classmethod
    def of(cls, answer: Any, tokens: pd.DataFrame, traces: pd.DataFrame) -> "Trace":
        """From an answer's row, its labelled tokens, and its rows of the traces."""
        ends = tokens["end"].tolist()
        pieces = [answer.response[start:end] for start, end in pairwise([0, *ends])]
        by_token = traces.sort_values("position")["heats"].to_list()
        heats = [
            np.stack(maps_TN).reshape(len(pieces), *grid)
            for maps_TN, grid in zip(zip(*by_token, strict=True), answer.grids, strict=True)
        ]
        return cls(pieces, tokens["label"].tolist(), heats)


def warning_figure(
    tokens: pd.DataFrame,
    detectors: Mapping[str, detection.Detector],
    report: detection.Report,
    calibrated: Mapping[str, detection.Calibration],
) -> Figure:
    """AUROC of every score with its interval, words caught by words warned at, risks against facts.

    `tokens`: the table behind `report` and `calibrated`.
    """
    figure = Figure(figsize=(15, 4.9), layout="constrained")
    bars, caught, risks = figure.subplots(1, 3, width_ratios=[1.25, 1, 1])
    words, labels = early_warning.object_words(tokens)
    scores = early_warning.scores(words, detectors)
    _bars(bars, report)
    _caught(caught, {name: scores[name] for name in LINES if name in report}, labels)
    _calibration(risks, calibrated)
    for axes in (bars, caught, risks):
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.25)
    title = "Early warning of hallucinated words, before the retraining, on the test images:"
    share = f"{labels.sum()} of {len(labels)} object words are hallucinated"
    figure.suptitle(figure_text(f"{title} {share}"), fontsize=13)
    return figure


def _bars(axes: Any, report: detection.Report) -> None:
    names = [name for name in SCORES if name in report][::-1]
    values = [report[name]["auroc"].interval() for name in names]
    points = np.array([value.point for value in values])
    reach = np.array([(v.point - v.low, v.high - v.point) for v in values]).clip(min=0).T
    colours = [SCORES[name][1] for name in names]
    whiskers = {"lw": 1.2, "capsize": 2.5, "ecolor": "#222222"}
    axes.barh(range(len(names)), points, 0.7, xerr=reach, color=colours, error_kw=whiskers)
    for y, value in enumerate(values):
        axes.text(value.high + 0.015, y, f"{value.point:.2f}", va="center", fontsize=9)
    axes.axvline(0.5, color="#222222", lw=0.8, ls=":")
    titles = [figure_text(SCORES[name][0]) for name in names]
    axes.set_yticks(range(len(names)), titles, fontsize=9)
    axes.set(xlim=(0, 1.12), xticks=np.arange(0, 1.01, 0.25))
    meaning = "0.5: a coin;\nbelow: this signal shows the opposite here"
    axes.set_xlabel(figure_text(f"AUROC with 95 % interval ({meaning})"))
    axes.set_title("Telling hallucinated from grounded", fontsize=11)


def _caught(axes: Any, scores: Mapping[str, np.ndarray], labels: np.ndarray) -> None:
    shares = np.linspace(0, 0.5, 101)
    for name, score in scores.items():
        title, colour = SCORES[name]
        values = [100 * detection.caught(score, labels, share) for share in shares]
        label = f"{title.split(' (')[0]}: {100 * detection.caught(score, labels):.0f} %"
        axes.plot(100 * shares, values, color=colour, lw=2, label=figure_text(label))
    warned = 100 * detection.WARNED
    axes.axvline(warned, color="#222222", lw=0.8, ls=":")
    axes.set(xlim=(0, 50), ylim=(0, 102))
    axes.set(xlabel="object words warned at, %", ylabel="hallucinated words caught, %")
    axes.set_title("Caught by how many warnings", fontsize=11)
    legend = f"caught at {warned:.0f} %"
    axes.legend(frameon=False, fontsize=8.5, loc="lower right", title=figure_text(legend))


def _calibration(axes: Any, calibrated: Mapping[str, detection.Calibration]) -> None:
    axes.plot([0, 1], [0, 1], color="#222222", lw=0.8, ls=":")
    for name, bins in calibrated.items():
        title, colour = SCORES[name]
        label = f"{title.split(' (')[0]}: mean gap {bins.error:.3f}"
        style = {"color": colour, "lw": 2, "ms": 4.5}
        axes.plot(bins.risk, bins.share, "o-", label=figure_text(label), **style)
    axes.set(xlim=(0, 1), ylim=(0, 1), ylabel="share that was hallucinated")
    axes.set_xlabel("risk that was told (bins of equally many words)")
    axes.set_title("Are the risks true?", fontsize=11)
    if calibrated:
        axes.legend(frameon=False, fontsize=8.5, loc="upper left")


def strip_figure(
    images: Sequence[Image.Image], trace: Trace, risk: np.ndarray | None, title: str
) -> Figure:
    """One answer token by token: where each token looked, the token, the risk under it.

    The detector is fitted on object words; what it says of other words is drawn grey. At most 31
    tokens; `risk` None leaves the bars out. All heat maps share one scale. `title`: the question.
    """
    # 1. A grid of cells: heat maps, risk bar, and room for the next row's title.
    count = min(len(trace.pieces), MOST)
    columns = COLUMNS if len(images) == 1 else COLUMNS // 2
    rows = -(-(count + 1) // columns)
    height = HEAD + ROW * rows
    figure = Figure(figsize=(1.4 * COLUMNS + 0.2, height))
    edges = {"left": 0.01, "right": 0.99, "bottom": 0, "top": 1 - HEAD / height}
    place = {"wspace": 0.08, "hspace": 0.05, **edges}
    grid = figure.add_gridspec(3 * rows, columns, height_ratios=[1.4, 0.13, 0.42] * rows, **place)
    # 2. The pictures themselves in the first cell, a token in each of the others.
    axes = figure.add_subplot(grid[0, 0])
    draw_pictures(axes, images)
    axes.set_title("(picture)" if len(images) == 1 else "(pictures)", fontsize=11, pad=4)
    heats = comparable(trace.heats)
    scale = colour_scale([heats], 0.99)
    for t in range(count):
        row, column = divmod(t + 1, columns)
        axes = figure.add_subplot(grid[3 * row, column])
        draw_heat(axes, images, [heat[t] for heat in heats], scale)
        colour, is_object = _titled(axes, trace, t)
        if risk is not None:
            bar = figure.add_subplot(grid[3 * row + 1, column])
            _risk_bar(bar, float(risk[t]), colour, is_object)
    # 3. What one sees.
    shown = f"; the first {count} of {len(trace.pieces)} tokens"
    heading = f"“{title}” What each token of the answer looked at"
    heading += shown if count < len(trace.pieces) else ""
    legend = "darker: more attention; blue word: is in the picture, red word: is not"
    if risk is not None:
        bars = "risk of being hallucinated, from attention alone (grey: not an object word)"
        legend += f"; bar: {bars}"
    top: dict[str, Any] = {"ha": "center", "va": "top"}
    figure.text(0.5, 1 - 0.08 / height, figure_text(heading), fontsize=12, **top)
    grey: dict[str, Any] = {"fontsize": 9.5, "color": "#444444"}
    figure.text(0.5, 1 - 0.36 / height, figure_text(legend), **grey, **top)
    return figure


def _titled(axes: Any, trace: Trace, t: int) -> tuple[str, bool]:
    """Write a token over its maps; returns its colour, and whether it is an object word."""
    is_object = trace.labels[t] != LABELS[0]
    colour = {"hallucinated": WRONG, "grounded": AFTER}.get(trace.labels[t], "black")
    word, weight = trace.pieces[t].strip() or "·", "bold" if is_object else "normal"
    axes.set_title(figure_text(word), fontsize=11, color=colour, pad=4, fontweight=weight)
    return colour, is_object


def _risk_bar(axes: Any, risk: float, colour: str, is_object: bool) -> None:
    axes.barh(0, 1, color="#EDEDED", height=1)
    axes.barh(0, risk, color=colour if is_object else "#BDBDBD", height=1)
    axes.set(xlim=(0, 1), ylim=(-0.5, 0.5))
    axes.axis("off")
    style = {"color": colour, "fontweight": "bold"} if is_object else {"color": GREY}
    axes.text(0.5, -0.75, f"{100 * risk:.0f} %", ha="center", va="top", fontsize=9, **style)
