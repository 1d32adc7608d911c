"""The page: what was read, as one HTML file that needs nothing else.

Texts of runs reach it through Jinja's escaping only; SVG is made by `charts`, which escapes its
own; pictures are drawn anew and embedded. The page's own policy forbids every script and request.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from jinja2 import DictLoader, Environment, StrictUndefined, Template
from markupsafe import Markup

from adapt.metrics.headline import ARMS
from adapt.report import charts, examples, figures
from adapt.report.charts import Chart, Line
from adapt.report.reading import SIGNALS, TRAINING, Record
from adapt.report.telling import LETTERS, line, moment, tell

NAMES = {
    "mass": "Visual mass",
    "amc": "Agreement with the anchor, S_AMC",
    "focus": "Focus",
    "responsiveness": "Responsiveness",
    "drift": "Drift",
    "fired": "Steering fired",
    "loss": "Loss",
    "vag/margins": "Margin of guidance by pictures",
    "rewards/accuracies": "Pairs in which the chosen answer wins",
    "sft/loss": "Negative log-likelihood of chosen answers",
    "chosen/displacement": "Displacement of chosen answers",
    "attn/mass_late_early": "Visual mass, late over early",
}


@dataclass(frozen=True)
class Group:
    """Charts under one heading, with one legend."""

    title: str
    about: str
    charts: list[dict[str, str]]
    legend: list[Line]


def render(records: Sequence[Record], made: str) -> str:
    """The page of one run, or of two that are compared; `made` says when and from what."""
    told = [tell(record, letter) for record, letter in zip(records, LETTERS, strict=False)]
    name = told[0].name if len(told) == 1 else f"{told[0].name} and {told[1].name}"
    kept, dropped = examples.panels(records)
    columns, rows = examples.answers(records)
    return _template().render(
        title=f"ADAPT: {name}",
        subtitle=_subtitle(records),
        style=Markup(_resource("style.css")),
        runs=told,
        reference=told[0].against if len(told) == 1 else "",
        main_rows=_rows([figures.headline(record) for record in records]),
        other_rows=_rows([figures.others(record) for record in records]),
        differences=_differences(records),
        charts=[_attention(records), _training(records)],
        answers=rows,
        answer_columns=columns,
        panels=kept,
        dropped=dropped,
        footer=made,
    )


def _template() -> Template:
    """`page.html`: every text that it is given is made one printable line, and escaped."""
    loader = DictLoader({"page.html": _resource("page.html")})
    options: dict[str, Any] = {"autoescape": True, "undefined": StrictUndefined}
    return Environment(loader=loader, finalize=_shown, **options).get_template("page.html")


def _shown(value: object) -> object:
    """What is put into the page for a value; `Markup` is ours, and stays."""
    return line(value) if type(value) is str else value


def _resource(name: str) -> str:
    return files("adapt.report").joinpath(name).read_text(encoding="utf-8")


def _subtitle(records: Sequence[Record]) -> str:
    whens = [moment(record.started) for record in records if record.started]
    kinds = {
        record.tags.get("adapt.kind") or record.tags.get("adapt.stage", "") for record in records
    }
    kind = kinds.pop() if len(kinds) == 1 else ""
    what = {"retraining": "A retraining", "": "A run"}.get(kind, f"Stage {kind}")
    what = "Two runs compared" if len(records) > 1 else what
    return line(", ".join([what, *whens]))


# ---- tables --------------------------------------------------------------------------------------


def _rows(tables: Sequence[Sequence[figures.Row]]) -> list[dict[str, object]]:
    """Rows of one or two runs by metric, in the order of the first."""
    by_key = [{row.key: row for row in table} for table in tables]
    keys = list(dict.fromkeys(key for table in by_key for key in table))
    reach = _reach(row for table in tables for row in table)
    return [_row(key, [table.get(key) for table in by_key], reach) for key in keys]


def _row(key: str, rows: Sequence[figures.Row | None], reach: float) -> dict[str, object]:
    known = next(row for row in rows if row)
    names = ("before", "after", "reference", "change", "range", "tone")
    blank = dict.fromkeys(names, "")
    cells = [blank if row is None else {name: getattr(row, name) for name in blank} for row in rows]
    span, bar = known.interval, ""
    if span:
        bar = charts.interval(span.low, span.high, span.point, reach, known.tone)
    between = _between([row.after if row else "" for row in rows])
    title, better = known.title, known.better
    return {
        "title": title,
        "better": better,
        "cells": cells,
        "bar": Markup(bar),
        "between": between,
    }


def _reach(rows: Iterable[figures.Row]) -> float:
    """How far the scale of intervals goes to either side."""
    spans = [row.interval for row in rows if row.interval]
    return max((abs(end) for span in spans for end in (span.low, span.high)), default=1.0) or 1.0


def _between(texts: Sequence[str]) -> str:
    """The difference of the second to the first, as exact as they are shown."""
    if len(texts) < 2 or "" in texts:
        return ""
    digits = len(texts[0].partition(".")[2])
    return f"{float(texts[1]) - float(texts[0]):+z.{digits}f}"


def _differences(records: Sequence[Record]) -> list[figures.Difference]:
    rows = figures.differing(records) if len(records) > 1 else []
    return [figures.Difference(line(one.key), tuple(map(line, one.values))) for one in rows]


# ---- curves --------------------------------------------------------------------------------------


def _attention(records: Sequence[Record]) -> Group:
    """How much attention stays on the picture along the answer, by arm."""
    arms = list(ARMS) if len(records) == 1 else ["base", "tuned"]
    drawn: list[Chart] = []
    for signal in SIGNALS:
        lines = _lines(records, [(f"curves/{signal}/{arm}", ARMS[arm], arm) for arm in arms])
        # Nothing fires where nothing is steered: that is a line at zero.
        lines = [one for one in lines if signal != "fired" or any(y for _, y in one.points)]
        title = NAMES[signal]
        drawn.append(Chart(title=title, x="generated token", y=title, lines=lines))
    about = (
        "Means over the answers of the test split, by position of the token. A curve that falls "
        "is attention that leaves the picture as the answer grows."
    )
    return _group("Attention along the answer", about, drawn)


def _training(records: Sequence[Record]) -> Group:
    """The curves of the training."""
    drawn = []
    for name in TRAINING:
        lines = _lines(records, [(f"train/{name}", "", "train")])
        drawn.append(Chart(title=NAMES[name], x="step", y=NAMES[name], lines=lines, smooth=True))
    return _group("Training", "By optimisation step; the bold line is a running mean.", drawn)


def _lines(records: Sequence[Record], wanted: Sequence[tuple[str, str, str]]) -> list[Line]:
    """The lines there are of (curve, name, look), the second run's dashed."""
    lines = []
    for letter, record in zip(LETTERS, records, strict=False):
        for key, name, look in wanted:
            if points := record.curves.get(key):
                whose = f"{letter}: " if len(records) > 1 else ""
                title = f"{whose}{name or line(record.name)}"
                lines.append(Line(name=title, points=points, look=look, dashed=letter == "B"))
    return lines


def _group(title: str, about: str, drawn: Sequence[Chart]) -> Group:
    shown = [
        {"title": chart.title, "svg": Markup(text)}
        for chart in drawn
        if (text := charts.svg(chart))
    ]
    legend = {one.name: one for chart in drawn for one in chart.lines}
    return Group(title, about, shown, list(legend.values()))
