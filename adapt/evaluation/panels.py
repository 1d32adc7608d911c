"""Panels: a row's pictures, where the model looked before and after, and what it said."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from adapt.data.schema import Example, open_images
from adapt.evaluation import plots
from adapt.evaluation.counts import sizes
from adapt.metrics.headline import ARMS
from adapt.metrics.split import FREE
from adapt.names import file_name

PANEL = ("base", "tuned")  # the arms of a panel


def write(
    judged: pd.DataFrame, examples: Mapping[str, Example], folder: Path, prefix: str = ""
) -> None:
    """A panel for each of the questions `examples`, by id; `judged` has the answers of all arms."""
    by_id = judged.set_index(["id", "arm"])
    for identity, example in examples.items():
        rows = [_row(ARMS[arm], by_id.loc[(identity, arm)]) for arm in PANEL]
        path = folder / f"{file_name(prefix + identity)}.png"
        plots.panel(open_images(example), rows, path, example.question)


def _row(title: str, row: Any) -> plots.PanelRow:
    maps = zip(row["heats"], row["grids"], strict=True)
    heats = [heat.reshape(grid) for heat, grid in maps]
    return plots.PanelRow(title=title, marked=row["marked"], heats=heats)


def most_changed(judged: pd.DataFrame) -> Sequence[str]:
    """Ids of free answers, those first in which the tuned model hallucinates less, or more.

    Then those, of which this is not known, that read otherwise; last those that are as they were.
    """
    free = judged[judged.kind.isin(FREE) & judged.arm.isin(PANEL)]
    if free.empty:
        return []
    count = free.assign(n=sizes(free.hallucinated)).pivot(index="id", columns="arm", values="n")
    change = (count["tuned"] - count["base"]).sort_values(kind="stable")
    better, worse, same = change[change < 0], change[change > 0], change[change == 0]
    # One failure among three successes: panels that show only successes would be an advertisement.
    order, failures = [], list(worse.index)
    for i, identity in enumerate(better.index):
        order.append(identity)
        if i % 3 == 2 and failures:
            order.append(failures.pop(0))
    texts = free.pivot(index="id", columns="arm", values="response").loc[same.index]
    is_new = texts["tuned"] != texts["base"]
    return [*order, *failures, *texts.index[is_new], *texts.index[~is_new]]
