"""Free answers to benchmarks, drawn: how attention decays along them, and where the models looked.

Writes `benchmark_curves.csv` (the columns of `curves.csv`, and the benchmark's label), for each
benchmark a figure of the visual mass along its answers, and panels of answers that changed. Words
are told apart, and the early warning is judged, where a benchmark is a split of ours: the programs
of the others say what is wrong, but not where it stands in the answer.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pandas as pd

from adapt.benchmarks import registry
from adapt.benchmarks.settings import Benchmark
from adapt.benchmarks.suite import Suite
from adapt.data.schema import read_vocabulary
from adapt.evaluation import early_warning, panels, plots
from adapt.evaluation.benchmarks import asked
from adapt.evaluation.degradation import curves, relative_curves
from adapt.evaluation.judge import Judged, judge
from adapt.evaluation.settings import Config
from adapt.metrics.detection import Detector
from adapt.metrics.headline import ARMS
from adapt.metrics.split import FREE

CURVE = "mass"  # the signal that has a figure
COLUMNS = ("arm", "signal", "split", "position", "mean", "low", "high", "n")


def write(
    config: Config, answers: Path, detectors: Mapping[str, Detector], out: Path
) -> dict[str, float]:
    """Draw the answers in words to every benchmark; returns metrics `detect/<label>.<measure>`."""
    responses = pd.read_parquet(answers / "benchmarks.parquet")
    tokens = pd.read_parquet(answers / "benchmark_tokens.parquet")
    metrics: dict[str, float] = {}
    tables = [pd.DataFrame(columns=["benchmark", *COLUMNS])]
    for label, benchmark in asked(answers).items():
        said, heard = (table[table.benchmark == label] for table in (responses, tokens))
        if heard.empty:
            continue
        # 1. Judge each arm's free answers, as far as it is known where a word is wrong.
        suite, said = registry.read(benchmark), said[said.kind.isin(FREE)]
        arms = {arm: _judged(config, benchmark, suite, said, heard, arm) for arm in ARMS}
        # 2. Curves, and the panels of what changed.
        absolute, relative = (
            pd.concat([of(one.tokens, arm) for arm, one in arms.items()], ignore_index=True)
            for of in (curves, relative_curves)
        )
        tables.append(absolute.assign(benchmark=label))
        figure = plots.curves_figure(absolute, relative, CURVE)
        plots.save(figure, out / "figures" / f"curves_{CURVE}_{label}.png")
        judged = pd.concat([one.responses for one in arms.values()], ignore_index=True)
        changed = panels.most_changed(judged)[: config.panels]
        examples = {row.id: row for row in suite.questions if row.id in changed}
        panels.write(judged, examples, out / "panels", f"{label}_")
        # 3. The early warning before the retraining.
        warned = _warning(config, detectors, arms["base"].tokens)
        metrics |= {f"detect/{label}.{name}": value for name, value in warned.items()}
    filled = [table for table in tables if len(table)] or tables
    plots.csv(pd.concat(filled, ignore_index=True), out / "benchmark_curves.csv")
    return metrics


def _judged(
    config: Config,
    benchmark: Benchmark,
    suite: Suite,
    said: pd.DataFrame,
    heard: pd.DataFrame,
    arm: str,
) -> Judged:
    """One arm's answers; of a benchmark that is no split of ours nothing in them is marked."""
    questions, vocabulary = suite.questions, None
    if benchmark.name == "own":
        path = Path(benchmark.path)
        vocabulary = read_vocabulary((path if path.is_dir() else path.parent) / "vocabulary.json")
    else:
        questions = [replace(row, objects=None, absent=None) for row in questions]
    responses, tokens = (table[table.arm == arm] for table in (said, heard))
    return judge(responses, tokens, questions, vocabulary, config.anchor.anchor_tokens)


def _warning(
    config: Config, detectors: Mapping[str, Detector], tokens: pd.DataFrame
) -> dict[str, float]:
    """The measures of the early warning; empty where there are too few words to judge it."""
    draws = {"resamples": config.bootstrap, "seed": config.seed}
    report = early_warning.report(tokens, detectors, **draws)
    calibrated = early_warning.calibrations(tokens, detectors) if report else {}
    return early_warning.metrics(report, calibrated)
