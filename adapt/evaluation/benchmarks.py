"""The answers to benchmarks scored by their official functions, for every arm.

Reads what stage `answer` wrote: `benchmarks.json` (which benchmarks, with what settings) and
`benchmarks.parquet` (the answers). A metric is called `<label>.<metric>`, under the name of the
benchmark's own program, in the unit of `adapt/metrics/measures.py`: rates are percent. Writes

    benchmarks.parquet  arm, benchmark, metric, image, numerator, denominator: what a bootstrap
                        draws. `image` counts the units of the benchmark's own bootstrap, its
                        pictures or their sets, in its order
    benchmarks.json     of each label what was counted, in which variant, and the SHA-256 of the
                        tables that the metrics depend on
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from adapt.benchmarks import registry
from adapt.benchmarks.settings import Benchmark
from adapt.evaluation.counts import Counted
from adapt.evaluation.degradation import late_early
from adapt.evaluation.settings import Config
from adapt.metrics.bootstrap import difference
from adapt.metrics.headline import ARMS
from adapt.metrics.measures import BENCHMARKS, Measure
from adapt.params import InputError, load
from adapt.score.chair import OWN_LIST

COLUMNS = ("arm", "benchmark", "metric", "image", "numerator", "denominator")


@dataclass(frozen=True, kw_only=True)
class Scored:
    """One arm on one benchmark, by metric: values in their units, and counts by image."""

    values: Mapping[str, float]
    counted: Mapping[str, Counted]
    about: Mapping[str, Any]

    def table(self, arm: str, label: str) -> pd.DataFrame:
        """The counts as rows of `benchmarks.parquet`."""
        parts = [
            pd.DataFrame(
                {"metric": name, "image": of.images, "numerator": of.above, "denominator": of.below}
            )
            for name, of in self.counted.items()
        ]
        rows = pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()
        return rows.assign(arm=arm, benchmark=label).reindex(columns=COLUMNS)


def asked(answers: Path) -> dict[str, Benchmark]:
    """The benchmarks that stage `answer` asked, by label."""
    content = json.loads((answers / "benchmarks.json").read_text(encoding="utf-8"))
    return {
        label: load({label: entry["settings"]}, label, Benchmark, str(answers / "benchmarks.json"))
        for label, entry in content.items()
    }


def scored(benchmark: Benchmark, rows: pd.DataFrame) -> Scored:
    """One arm's answers: columns id and response, and a judge's verdict where one is needed."""
    answers = dict(zip(rows.id, rows.response, strict=True))
    judged = rows[rows.verdict.notna()]
    verdicts = dict(zip(judged.id, judged.verdict, strict=True))
    read = registry.answered(benchmark, answers, verdicts)
    official = read.score("official")
    of = BENCHMARKS[benchmark.name]
    values = {name: of[name].official * value for name, value in official.metrics.items()}
    pairs = {name: _counted(of[name], *pair) for name, pair in official.ratios.items()}
    # Our own list of words is code, wherever it is installed.
    given = [path for path in read.tables if path != OWN_LIST]
    tables = {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in given}
    about = {"variant": official.variant, "tables": tables, "notes": list(read.notes)}
    return Scored(values=values, counted={k: c for k, c in pairs.items() if c}, about=about)


def _counted(of: Measure, above: np.ndarray, below: np.ndarray) -> Counted | None:
    """Counts of a benchmark, as ratios of one; None where there is nothing to divide by."""
    if not of.resampled or not below.any():
        return None
    images = tuple(map(str, range(len(below))))
    return Counted(images, above / 100 if of.hundredths else above, below)


def write(config: Config, answers: Path, out: Path) -> dict[str, float]:
    """Score every arm on every benchmark; returns metrics `<arm>/<label>.<metric>`.

    Those of `difference/` are tuned minus base, with 95 % intervals.
    """
    responses = pd.read_parquet(answers / "benchmarks.parquet")
    tokens = pd.read_parquet(answers / "benchmark_tokens.parquet")
    metrics: dict[str, float] = {}
    tables, about = [pd.DataFrame(columns=COLUMNS)], dict[str, Any]()
    for label, benchmark in asked(answers).items():
        arms: dict[str, Scored] = {}
        for arm in ARMS:
            rows, own = (t[(t.benchmark == label) & (t.arm == arm)] for t in (responses, tokens))
            arms[arm] = scored(benchmark, rows)
            values = {**arms[arm].values, **signals(own)}
            metrics |= {f"{arm}/{label}.{name}": value for name, value in values.items()}
            tables.append(arms[arm].table(arm, label))
        about[label] = arms["base"].about
        metrics |= _differences(config, label, arms["tuned"], arms["base"])
    pd.concat(tables, ignore_index=True).to_parquet(out / "benchmarks.parquet", index=False)
    text = json.dumps(about, indent=2, sort_keys=True)
    (out / "benchmarks.json").write_text(text + "\n", encoding="utf-8")
    return metrics


def signals(tokens: pd.DataFrame) -> dict[str, float]:
    """How attention decays along the free answers to a benchmark; empty where there are none."""
    ratios = late_early(tokens) if len(tokens) else {}
    return {f"{name}_late_early": v for name, v in ratios.items() if np.isfinite(v)}


def _differences(config: Config, label: str, new: Scored, old: Scored) -> dict[str, float]:
    metrics: dict[str, float] = {}
    for name, of in new.counted.items():
        # Nothing may be counted of the other: the precision of a model that never says yes.
        if (before := old.counted.get(name)) is None:
            continue
        if of.images != before.images:
            raise InputError(f"{label}.{name}: the arms did not answer the same questions")
        columns = (of.above, of.below, before.above, before.below)
        change = difference(*columns, resamples=config.bootstrap, seed=config.seed)
        key = f"difference/{label}.{name}"
        metrics |= {key: change.point, f"{key}_low": change.low, f"{key}_high": change.high}
    return metrics
