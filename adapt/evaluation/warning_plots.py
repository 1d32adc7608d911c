"""Figures of the early warning: what warns how well, whether its risks are true, and one answer
token by token.

The style is that of `adapt/evaluation/plots.py`: colours that any eye tells apart, the same bytes
for the same input.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from adapt.evaluation import detection, early_warning
from adapt.evaluation.plots import AFTER, BEFORE, WRONG, heat_map

if TYPE_CHECKING:
    from PIL import Image


GREY = "#8A8A8A"
SCORES = {  # name, colour
    "attention_probability": ("attention + probability", "#009E73"),
    "attention": ("attention (five signals)", AFTER),
    "mass": ("visual mass", "#56B4E9"),
    "focus": ("focus", "#56B4E9"),
    "amc": ("anchor amc", "#56B4E9"),
    "responsiveness": ("responsiveness", "#56B4E9"),
    "drift": ("drift", "#56B4E9"),
    "svar": ("SVAR, middle layers (baseline)", BEFORE),
    "probability": ("token probability (baseline)", "#E69F00"),
    "position": ("position alone (control)", GREY),
}
LINES = ("attention_probability", "attention", "svar", "probability", "position")
COLUMNS, MOST = 8, 31  # of the strip; tokens beside the picture


@dataclass(frozen=True)
class Trace:
    """One description token by token: pieces of its text, labels, attention [T, rows, columns]."""

    pieces: list[str]
    labels: list[str]
    heat: np.ndarray

    @classmethod
    def of(cls, answer: Any, tokens: pd.DataFrame, heat: pd.DataFrame) -> "Trace":
        """From an answer's row, its labelled tokens, and its rows of the traces."""
        ends = tokens["end"].tolist()
        pieces = [answer.response[start:end] for start, end in pairwise([0, *ends])]
        maps_TN = np.stack(heat.sort_values("position")["heat"].to_list())
        return cls(pieces, tokens["label"].tolist(), maps_TN.reshape(len(pieces), *answer.grid))


def warning_figure(
    tokens: pd.DataFrame,
    detectors: Mapping[str, detection.Detector],
    found: early_warning.Report,
    calibrated: Mapping[str, detection.Calibration],
) -> Figure:
    """AUROC of every score with its interval, words caught by words warned at, and risks against
    what happened.

    Args:
        tokens: the token table behind `found` and `calibrated`.
    """
    figure = Figure(figsize=(15, 4.9), layout="constrained")
    bars, caught, risks = figure.subplots(1, 3, width_ratios=[1.25, 1, 1])
    _bars(bars, found)
    _caught(caught, tokens, detectors, [name for name in LINES if name in found])
    _calibration(risks, calibrated)
    for axes in (bars, caught, risks):
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.25)
    labels = early_warning.object_words(tokens)[1]
    figure.suptitle(
        f"Early warning of hallucinated words, before the retraining, on the test images: {labels.sum()}"
        f" of {len(labels)} object words are hallucinated",
        fontsize=13,
    )
    return figure


def _bars(axes: Any, found: early_warning.Report) -> None:
    names = [name for name in SCORES if name in found][::-1]
    values = [found[name]["auroc"].interval() for name in names]
    points = np.array([v.point for v in values])
    reach = np.array([(v.point - v.low, v.high - v.point) for v in values]).clip(min=0).T
    axes.barh(
        range(len(names)),
        points,
        xerr=reach,
        color=[SCORES[name][1] for name in names],
        height=0.7,
        error_kw={"lw": 1.2, "capsize": 2.5, "ecolor": "#222222"},
    )
    for y, v in enumerate(values):
        axes.text(v.high + 0.015, y, f"{v.point:.2f}", va="center", fontsize=9)
    axes.axvline(0.5, color="#222222", lw=0.8, ls=":")
    axes.set_yticks(range(len(names)), [SCORES[name][0] for name in names], fontsize=9)
    axes.set_xlim(0, 1.12)
    axes.set_xticks(np.arange(0, 1.01, 0.25))
    axes.set_xlabel(
        "AUROC with 95 % interval (0.5: a coin;\nbelow: this signal shows the opposite here)"
    )
    axes.set_title("Telling hallucinated from grounded", fontsize=11)


def _caught(
    axes: Any,
    tokens: pd.DataFrame,
    detectors: Mapping[str, detection.Detector],
    names: Sequence[str],
) -> None:
    words, labels = early_warning.object_words(tokens)
    scores = early_warning.scores(words, detectors)
    share = np.linspace(0, 0.5, 101)
    for name in names:
        title, colour = SCORES[name]
        values = [100 * detection.caught(scores[name], labels, part) for part in share]
        at = 100 * detection.caught(scores[name], labels)
        axes.plot(
            100 * share, values, color=colour, lw=2, label=f"{title.split(' (')[0]}: {at:.0f} %"
        )
    axes.axvline(100 * detection.WARNED, color="#222222", lw=0.8, ls=":")
    axes.set_xlim(0, 50)
    axes.set_ylim(0, 102)
    axes.set_xlabel("object words warned at, %")
    axes.set_ylabel("hallucinated words caught, %")
    axes.set_title("Caught by how many warnings", fontsize=11)
    axes.legend(
        frameon=False,
        fontsize=8.5,
        loc="lower right",
        title=f"caught at {100 * detection.WARNED:.0f} %",
    )


def _calibration(axes: Any, calibrated: Mapping[str, detection.Calibration]) -> None:
    axes.plot([0, 1], [0, 1], color="#222222", lw=0.8, ls=":")
    for name, c in calibrated.items():
        title, colour = SCORES[name]
        label = f"{title.split(' (')[0]}: mean gap {c.error:.3f}"
        axes.plot(c.risk, c.share, "o-", color=colour, lw=2, ms=4.5, label=label)
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1)
    axes.set_xlabel("risk that was told (bins of equally many words)")
    axes.set_ylabel("share that was hallucinated")
    axes.set_title("Are the risks true?", fontsize=11)
    if calibrated:
        axes.legend(frameon=False, fontsize=8.5, loc="upper left")


def strip_figure(image: "Image.Image", trace: Trace, risk: np.ndarray | None, title: str) -> Figure:
    """One answer token by token: where each token looked, the token (object words in colour), the
    risk under it.

    The detector is fitted on object words; what it says of other words is drawn grey. At most 31
    tokens; `risk` None leaves the bars out. All heat maps share one scale. `title`: the question.
    """
    count = min(len(trace.pieces), MOST)
    rows = -(-(count + 1) // COLUMNS)
    head, side = 0.85, 1.95  # inches: of the titles, of a row
    height = head + side * rows
    figure = Figure(figsize=(1.4 * COLUMNS + 0.2, height))
    grid = figure.add_gridspec(
        3 * rows,
        COLUMNS,
        height_ratios=[1.4, 0.13, 0.42] * rows,
        left=0.01,
        right=0.99,
        wspace=0.08,
        hspace=0.05,
        bottom=0,
        top=1 - head / height,
    )
    pixels = np.asarray(image.convert("RGB"))
    scale = Normalize(0, float(np.quantile(trace.heat, 0.99)) or 1.0, clip=True)
    picture = figure.add_subplot(grid[0, 0])
    picture.imshow(pixels, interpolation="nearest")
    picture.set_title("(picture)", fontsize=11, pad=4)
    picture.axis("off")
    for t in range(count):
        row, column = divmod(t + 1, COLUMNS)
        label = trace.labels[t]
        axes = figure.add_subplot(grid[3 * row, column])
        heat_map(axes, pixels, trace.heat[t], scale)
        colour = {"hallucinated": WRONG, "grounded": AFTER}.get(label, "black")
        axes.set_title(
            trace.pieces[t].strip() or "·",
            fontsize=11,
            color=colour,
            pad=4,
            fontweight="normal" if label == "other" else "bold",
        )
        if risk is not None:
            _risk_bar(
                figure.add_subplot(grid[3 * row + 1, column]),
                float(risk[t]),
                colour,
                label != "other",
            )
    left_out = (
        f"; the first {count} of {len(trace.pieces)} tokens" if count < len(trace.pieces) else ""
    )
    figure.text(
        0.5,
        1 - 0.08 / height,
        f"“{title}” What each token of the answer looked at{left_out}",
        ha="center",
        va="top",
        fontsize=12,
    )
    told = (
        ""
        if risk is None
        else "; bar: risk of being hallucinated, from attention alone (grey: not an object word)"
    )
    figure.text(
        0.5,
        1 - 0.36 / height,
        f"darker: more attention; blue word: is in the picture, red word: is not{told}",
        ha="center",
        va="top",
        fontsize=9.5,
        color="#444444",
    )
    return figure


def _risk_bar(axes: Any, risk: float, colour: str, is_object: bool) -> None:
    axes.barh(0, 1, color="#EDEDED", height=1)
    axes.barh(0, risk, color=colour if is_object else "#BDBDBD", height=1)
    axes.set_xlim(0, 1)
    axes.set_ylim(-0.5, 0.5)
    axes.axis("off")
    axes.text(
        0.5,
        -0.75,
        f"{100 * risk:.0f} %",
        ha="center",
        va="top",
        fontsize=9,
        color=colour if is_object else GREY,
        fontweight="bold" if is_object else "normal",
    )
