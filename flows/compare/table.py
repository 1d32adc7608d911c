"""The arms side by side, as a table in Markdown and CSV and as a chart, in `comparison.folder`."""

from collections.abc import Sequence
from functools import partial

import pandas as pd

from adapt.evaluation.comparison import chart, hal_difference, markdown, summary
from adapt.files import whole_folder
from flows.compare.arms import Comparison
from flows.compare.scoring import ArmScores


def write(comparison: Comparison, scores: Sequence[ArmScores]) -> str:
    """Write `comparison.folder`; returns the table in Markdown."""
    judged: dict[str, list[pd.DataFrame]] = {}
    worlds: dict[str, list[str]] = {}
    for one in scores:
        judged.setdefault(one.arm, []).append(pd.read_parquet(one.judged))
        worlds.setdefault(one.arm, []).append(one.world)
    content = comparison.content
    resamples, seed = content["evaluate"]["bootstrap"], content["seed"]
    compared = partial(hal_difference, resamples=resamples, seed=seed)
    against = {
        other: {
            arm: compared(judged[arm], judged[other])
            for arm in judged
            if arm != other and worlds[arm] == worlds[other]
        }
        for other in comparison.arms.references
        if other in judged
    }
    long = pd.DataFrame([{"arm": one.arm, "seed": one.seed, **one.metrics} for one in scores])
    text = markdown(summary(long, against))
    with whole_folder(comparison.folder) as out:
        (out / "table.md").write_text(text, encoding="utf-8")
        long.to_csv(out / "table.csv", index=False)
        chart(long, out / "arms.png")
    return text
