"""The two sides of a promotion: what was measured of the tuned model and of what it has to beat.

Stage `evaluate` has judged the tuned model and its base. A champion that is neither is asked the
same questions anew: those of the test split, and of the benchmarks that a rule of the gate names.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from adapt.benchmarks import registry
from adapt.benchmarks.settings import Benchmark
from adapt.environment import state_dir
from adapt.evaluation import benchmarks
from adapt.evaluation.counts import COUNTS, Counted, counted
from adapt.evaluation.gate import Scores
from adapt.evaluation.judge import judge_split
from adapt.evaluation.rules import Rules
from adapt.generation import verdicts as judging
from adapt.metrics.measures import parts
from adapt.params import Content, require
from adapt.stages import answer

if TYPE_CHECKING:
    import pandas as pd

    from adapt.generation.bench import Bench

MAPS = ("heats", "grids")  # columns of answers that take the most room, and that no rule counts


@dataclass(frozen=True, kw_only=True)
class Contestant:
    """One side: its judged answers to the test split, and of benchmarks what is counted by image.

    `metrics` are those of `evaluate` without the arm: `hal`, `amber.hal`.
    """

    name: str
    metrics: Mapping[str, float]
    judged: "pd.DataFrame"
    counted: Mapping[str, Counted]

    def scores(self, rules: Rules) -> Scores:
        """What the gate compares: counts of the metrics that rules name."""
        own = {key: counted(self.judged, key) for key in rules.named if key in COUNTS}
        there = {key: of for key, of in own.items() if of is not None}
        return Scores(values=self.metrics, counted={**self.counted, **there})


def labels(config: Content) -> dict[str, str]:
    """The name of the benchmark behind each label of `answer.benchmarks`."""
    return {one.called: one.name for one in config["answer"].benchmarks}


def evaluated(folder: Path, rules: Rules, arm: str, name: str) -> Contestant:
    """An arm that stage `evaluate` has judged."""
    import pandas as pd
    from pyarrow import parquet

    metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    own = {k.removeprefix(f"{arm}/"): v for k, v in metrics.items() if k.startswith(f"{arm}/")}
    path, mine = folder / "judged.parquet", ("arm", "==", arm)
    columns = [c for c in parquet.read_schema(path).names if c not in MAPS]
    judged = pd.read_parquet(path, columns=columns, filters=[mine])
    by_metric: dict[str, Counted] = {}
    if wanted := {parts(key)[0] for key in rules.named} - {""}:
        filters = [mine, ("benchmark", "in", wanted)]
        rows = pd.read_parquet(folder / "benchmarks.parquet", filters=filters)
        pairs = rows.groupby(["benchmark", "metric"], sort=False)
        by_metric = {f"{label}.{metric}": _column(of) for (label, metric), of in pairs}
    return Contestant(name=name, metrics=own, judged=judged, counted=by_metric)


def _column(rows: "pd.DataFrame") -> Counted:
    above, below = (rows[name].to_numpy(np.float64) for name in ("numerator", "denominator"))
    return Counted(tuple(rows.image), above, below)


def anew(config: Content, model: Path, root: Path, name: str) -> Contestant:
    """A model from elsewhere, asked and judged as the stages do."""
    results = root / "results"
    splits = results / "data" / "splits"
    bench = answer.open_bench(config["answer"], model, splits, "test")
    tables = bench.ask("tuned", None)
    anchor_tokens = config["evaluate"].anchor.anchor_tokens
    judged = judge_split(tables.responses, tables.tokens, splits, "test", anchor_tokens)
    metrics, by_metric = dict(judged.metrics), dict[str, Counted]()
    for one in named(config["gate"], config["answer"].benchmarks):
        scored, signals = _benchmark(bench, one, results / "answer", state_dir(root))
        values = {**scored.values, **signals}
        metrics |= {f"{one.called}.{metric}": value for metric, value in values.items()}
        by_metric |= {f"{one.called}.{metric}": of for metric, of in scored.counted.items()}
    return Contestant(name=name, metrics=metrics, judged=judged.responses, counted=by_metric)


def named(rules: Rules, listed: Iterable[Benchmark]) -> list[Benchmark]:
    """The benchmarks that a rule names."""
    wanted = {parts(key)[0] for key in rules.named}
    return [one for one in listed if one.called in wanted]


def _benchmark(
    bench: "Bench", benchmark: Benchmark, answers: Path, state: Path
) -> tuple[benchmarks.Scored, dict[str, float]]:
    """One model's figures on one benchmark; InputError where it is not what `answer` asked."""
    suite, label = registry.read(benchmark), benchmark.called
    recorded = json.loads((answers / "benchmarks.json").read_text(encoding="utf-8"))
    same = all(recorded.get(label, {}).get(k) == v for k, v in suite.fingerprint.items())
    problem = "is not what stage answer asked; bring the stages up to date (make run)"
    require(same, f"{label}: {benchmark.path}", problem)
    tables = bench.turned_to(label, suite.questions, suite.max_new_tokens).ask("tuned", None)
    rows = tables.responses
    said = dict(zip(rows.id, rows.response, strict=True))
    verdicts = judging.verdicts(benchmark, suite, said, "champion", state / "verdicts")
    scored = benchmarks.scored(benchmark, rows.assign(verdict=rows.id.map(verdicts)))
    return scored, benchmarks.signals(tables.tokens)
