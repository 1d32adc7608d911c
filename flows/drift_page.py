"""A window of answers on a page: for MLflow, for Prefect's artifact, and in one sentence."""

import math
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from adapt.names import figure_text, one_line
from adapt.watching.drift import Signal, Window
from adapt.watching.profile import Profile

SHOWN = 12  # signals of a figure
NAMED = 3  # signals of a sentence
TICKS = (0.05, 0.25, 0.5, 0.75, 0.95)  # quantiles of the profile in a figure


def sentence(window: Window, version: str) -> str:
    """What became of a window, in a line."""
    about = f"{window.answers} answers, {at(window.first)} to {at(window.last)}"
    if not window.alarms:
        return f"version {version} answers as on its validation split ({about})"
    parts = []
    if window.is_other:
        others = ", ".join(
            f"{count} of version {one or '?'}"
            for one, count in window.versions.items()
            if one != version
        )
        parts.append(f"{others}, and the champion is version {version}")
    if window.changed:
        first = ", ".join(_said(one) for one in window.changed[:NAMED])
        left = len(window.changed) - NAMED
        more = f" and {left} more" if left > 0 else ""
        parts.append(f"{first}{more}: not as on the validation split of version {version}")
    return one_line(f"answers have drifted: {'; '.join(parts)} ({about})")


def reason(window: Window) -> str:
    """The same in a few words, for the name of a run."""
    names = [one.name for one in window.changed[:NAMED]]
    return f"drift: {', '.join(names) or 'another version answers'}"


def at(seconds: float) -> str:
    """A time for people.

    >>> at(0)
    '1970-01-01 00:00 UTC'
    """
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M} UTC"


def _said(one: Signal) -> str:
    numbers = f"{_number(one.reference)} to {_number(one.window)}"
    return f"{one.name} {one.direction} (median {numbers})"


def page(window: Window, version: str, number: int, profile: Profile) -> str:
    """Markdown: the sentence, a table of all signals, and how they are tested."""
    heads = "signal | profile | window | distance | p | adjusted p | missing | "
    rows = [
        f"| {one.name} | {_number(one.reference)} | {_number(one.window)} | {one.distance:.3f} | "
        f"{one.p:.2g} | {one.adjusted:.2g} | {100 * one.missing:.0f} % | "
        f"{'**changed**' if one in window.changed else ''} |"
        for one in window.signals
    ]
    tests = (
        f"Medians; the largest distance of the two distributions and its p-value (Kolmogorov and "
        f"Smirnov), adjusted for {len(rows)} signals (Holm). A signal has changed at an adjusted p "
        f"of {window.limit:g} or less. The profile is of {profile.pictures} pictures."
    )
    return "\n".join(
        [
            f"# Window {number} of version {one_line(version)}",
            "",
            f"{sentence(window, version)}.",
            "",
            f"| {heads}|",
            f"|{'---|' * 8}",
            *rows,
            "",
            tests,
            "",
        ]
    )


def figure(profile: Profile, windows: Sequence[Window]) -> Figure:
    """Medians of the signals that have changed most, window by window, over the profile's spread.

    A window that alarms is a filled point.
    """
    known = [one.name for one in windows[-1].signals if one.name in profile.values][:SHOWN]
    columns = min(4, len(known))
    lines = math.ceil(len(known) / columns)
    drawn = Figure(figsize=(3.4 * columns, 2.4 * lines), layout="constrained")
    FigureCanvasAgg(drawn)
    grid = drawn.subplots(lines, columns, squeeze=False)
    for axes, name in zip(grid.flat, known, strict=False):
        values = np.array(profile.values[name])
        low, near, middle, far, high = np.quantile(values[~np.isnan(values)], TICKS)
        axes.axhspan(low, high, color="#0072B2", alpha=0.12, linewidth=0)
        axes.axhspan(near, far, color="#0072B2", alpha=0.18, linewidth=0)
        axes.axhline(middle, color="#0072B2", linewidth=1)
        medians = [_of(window, name) for window in windows]
        changed = [name in [one.name for one in window.changed] for window in windows]
        places = range(1, len(windows) + 1)
        axes.plot(places, medians, color="#D55E00", linewidth=1)
        filled = ["#D55E00" if one else "white" for one in changed]
        axes.scatter(places, medians, c=filled, edgecolors="#D55E00", s=18, zorder=3)
        axes.set_title(figure_text(name), fontsize=9)
        axes.tick_params(labelsize=7)
    for axes in list(grid.flat)[len(known) :]:
        axes.set_axis_off()
    drawn.supxlabel(figure_text("window"), fontsize=9)
    return drawn


def save(drawn: Figure, path: Path) -> None:
    """Write a PNG without the date that would make two equal figures differ."""
    drawn.savefig(path, format="png", dpi=110, metadata={"Software": None})


def _of(window: Window, name: str) -> float:
    return next((one.window for one in window.signals if one.name == name), math.nan)


def _number(value: float) -> str:
    return "none" if math.isnan(value) else f"{value:.4g}"
