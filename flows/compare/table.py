"""The arms side by side, as tables in Markdown and CSV and as a chart, in `comparison.folder`."""

from collections.abc import Mapping, Sequence
from functools import partial

import pandas as pd

from adapt.evaluation.comparison import (
    COMPARED,
    Change,
    change,
    chart,
    differences,
    markdown,
    summary,
)
from adapt.files import whole_folder
from flows.compare.arms import Comparison
from flows.compare.scoring import ArmScores

Changes = Mapping[str, Mapping[str, Change | None]]


def write(comparison: Comparison, scores: Sequence[ArmScores]) -> str:
    """Write `comparison.folder`; returns its tables in Markdown."""
    against = _changes(comparison, scores)
    long = pd.DataFrame([{"arm": one.arm, "seed": one.seed, **one.metrics} for one in scores])
    parts = [markdown(summary(long))]
    for other, changes in against.items():
        title = f"Differences to {other}: points [95 % interval], part of {other}'s\n\n"
        parts.append(title + markdown(differences(changes)))
    text = "\n".join(parts)
    with whole_folder(comparison.folder) as out:
        (out / "table.md").write_text(text, encoding="utf-8")
        long.to_csv(out / "table.csv", index=False)
        _long(against).to_csv(out / "differences.csv", index=False)
        chart(long, out / "arms.png")
    return text


def _changes(comparison: Comparison, scores: Sequence[ArmScores]) -> dict[str, Changes]:
    """Of each reference: what every other arm of its world changes, metric by metric."""
    judged: dict[str, list[pd.DataFrame]] = {}
    worlds: dict[str, list[str]] = {}
    for one in scores:
        judged.setdefault(one.arm, []).append(pd.read_parquet(one.judged))
        worlds.setdefault(one.arm, []).append(one.world)
    content = comparison.content
    resamples, seed = content["evaluate"]["bootstrap"], content["seed"]
    compared = partial(change, resamples=resamples, seed=seed)
    against = {
        other: {
            arm: {metric: compared(metric, judged[arm], judged[other]) for metric in COMPARED}
            for arm in judged
            if arm != other and worlds[arm] == worlds[other]
        }
        for other in comparison.arms.references
        if other in judged
    }
    return {other: changes for other, changes in against.items() if changes}


def _long(against: Mapping[str, Changes]) -> pd.DataFrame:
    columns = ("against", "arm", "metric", "points", "low", "high", "part")
    rows = [
        (other, arm, metric, *one.points, one.part)
        for other, changes in against.items()
        for arm, of_arm in changes.items()
        for metric, one in of_arm.items()
        if one is not None
    ]
    return pd.DataFrame(rows, columns=columns)
