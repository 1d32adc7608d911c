"""What stage `evaluate` writes: judged answers, metrics, tables and plots of all arms.

Everything is worked out from the tables of stage `answer` and the ground truth; see
`adapt/stages/evaluate.py` for the files.
"""

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from adapt.data.schema import Example, Vocabulary, open_images, read_vocabulary
from adapt.data.tables import read_split
from adapt.evaluation import (
    benchmark_plots,
    benchmarks,
    early_warning,
    feature_sets,
    panels,
    plots,
    warning_plots,
)
from adapt.evaluation.counts import counted, described, sizes
from adapt.evaluation.degradation import DRAWN, curves, relative_curves
from adapt.evaluation.judge import Judged, judge
from adapt.evaluation.settings import Config
from adapt.metrics import detection
from adapt.metrics.bootstrap import difference
from adapt.metrics.detection import Detector
from adapt.metrics.headline import ARMS
from adapt.metrics.measures import OBJECTS, unmeasured
from adapt.names import one_line

DIFFERENCES = ("hal", "cover", "chair_i")  # of tuned and base, with intervals


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Inputs:
    """The tables of stage `answer`, and the splits that were asked about, each read once."""

    answers: Path
    splits: Path
    responses: pd.DataFrame
    tokens: pd.DataFrame
    vocabulary: Vocabulary | None
    examples: Mapping[str, Mapping[str, Example]]  # by split and id

    def judged(self, arm: str, split: str, anchor_tokens: int) -> Judged:
        """One arm on one split."""
        both = (self.responses, self.tokens)
        responses, tokens = (t[(t.arm == arm) & (t.split == split)] for t in both)
        examples = self.examples[split].values()
        return judge(responses, tokens, examples, self.vocabulary, anchor_tokens)


def write(config: Config, answers: Path, splits: Path, out: Path) -> dict[str, float]:
    """Judge what stage `answer` left in `answers`, write everything into `out`; returns metrics."""
    names = ("responses", "tokens")
    tables = {name: pd.read_parquet(answers / f"{name}.parquet") for name in names}
    feature_sets.check(tables["tokens"], str(answers / "tokens.parquet"))
    inputs = _Inputs(
        answers=answers,
        splits=splits,
        vocabulary=read_vocabulary(splits / "vocabulary.json"),
        examples={name: _by_id(splits / f"{name}.parquet") for name in ("validation", "test")},
        **tables,
    )
    for folder in ("figures", "panels"):
        (out / folder).mkdir()
    # 1. Judge every arm on the test split, and say what it has no truth for.
    K = config.anchor.anchor_tokens
    arms = {arm: inputs.judged(arm, "test", K) for arm in ARMS}
    judged = pd.concat([arm.responses for arm in arms.values()], ignore_index=True)
    judged.to_parquet(out / "judged.parquet", index=False)
    metrics = {f"{arm}/{key}": v for arm, one in arms.items() for key, v in one.metrics.items()}
    metrics |= _steered(answers)
    metrics |= differences(config, arms["tuned"].responses, arms["base"].responses)
    for need, missing in unmeasured(arms["base"].metrics).items():
        print(one_line(f"without {', '.join(missing)}: the test split has no {need}"), flush=True)
    metrics |= benchmarks.write(config, answers, out)
    # 2. Fit the early warning on validation words only, and judge it on the test split.
    detectors, own, sets = _detectors(config, inputs, out)
    metrics |= _warning(config, detectors, own, sets, arms, out)
    # 3. Tables and plots.
    _curves(arms, out)
    _strip(inputs, detectors, arms["base"], out)
    if figure := plots.before_after_figure(metrics):
        plots.save(figure, out / "figures" / "before_after.png")
    drawn = panels.most_changed(judged)[: config.panels]
    examples = {identity: inputs.examples["test"][identity] for identity in drawn}
    panels.write(judged, examples, out / "panels")
    metrics |= benchmark_plots.write(config, answers, detectors, out)
    return metrics


def _steered(answers: Path) -> dict[str, float]:
    """The numbers by which each model was steered, beside what came of it."""
    rules = json.loads((answers / "steering.json").read_text(encoding="utf-8"))
    numbers = {arm: {name: rule[name] for name in ("alpha", "tau")} for arm, rule in rules.items()}
    return {f"{arm}_steered/{name}": of[name] for arm, of in numbers.items() for name in of}


def _by_id(path: Path) -> dict[str, Example]:
    """The questions of a split; their pictures are read when they are looked at."""
    return {row.id: row for row in read_split(path)}


def differences(config: Config, after: pd.DataFrame, before: pd.DataFrame) -> dict[str, float]:
    """Tuned minus base, in points, with 95 % intervals from a paired bootstrap over images."""
    metrics: dict[str, float] = {}
    for name in DIFFERENCES:
        new, old = counted(after, name), counted(before, name)
        if new is None or old is None:
            continue
        columns = (new.above, new.below, old.above, old.below)
        change = difference(*columns, resamples=config.bootstrap, seed=config.seed)
        key = f"difference/{name}"
        metrics |= {key: change.point, f"{key}_low": change.low, f"{key}_high": change.high}
    return metrics


_Detectors = dict[str, Detector]


def _detectors(
    config: Config, inputs: _Inputs, out: Path
) -> tuple[_Detectors, _Detectors, _Detectors]:
    """Detectors fitted on descriptions of the validation split: of the base model and of the tuned.

    `detector.json` and `detector_tuned.json` keep them with what they were fitted on, or say why
    there are none. Last those of the feature sets, on the base model's words.
    """
    words = _object_words(config, inputs, "base")
    detectors = _fitted(inputs, "base", words, out / "detector.json")
    tuned_words = _object_words(config, inputs, "tuned")
    own = _fitted(inputs, "tuned", tuned_words, out / "detector_tuned.json")
    return detectors, own, feature_sets.fitted(words) if words is not None else {}


def _object_words(config: Config, inputs: _Inputs, arm: str) -> pd.DataFrame | None:
    """Those of a model's descriptions of the validation split; None where nothing is known."""
    judged = inputs.judged(arm, "validation", config.anchor.anchor_tokens)
    known = len(described(judged.responses))
    return early_warning.object_words(judged.tokens)[0] if known else None


def _fitted(inputs: _Inputs, arm: str, words: pd.DataFrame | None, file: Path) -> _Detectors:
    """The detectors of these words, written into the file."""
    with (inputs.splits / "validation.parquet").open("rb") as split:
        digest = hashlib.file_digest(split, "sha256").hexdigest()
    source: dict[str, str | int] = {"split": "validation", "data_sha256": digest}
    detectors, problem = _Detectors(), f"the validation split has no {OBJECTS}"
    if words is not None:
        detectors, problem = early_warning.fitted(words), early_warning.problem(words)
        _, labels = early_warning.object_words(words)
        source |= {
            "model": json.loads((inputs.answers / "models.json").read_text())[arm],
            "images": int(words.image_id.nunique()),
            "words": len(words),
            "hallucinated": int(labels.sum()),
        }
    if problem:
        of = f", {arm} model" if arm != "base" else ""
        print(one_line(f"no detector for the early warning{of}: {problem}"), flush=True)
    detection.write(file, detectors, source, problem)
    return detectors


def _warning(
    config: Config,
    detectors: Mapping[str, Detector],
    own: Mapping[str, Detector],
    sets: Mapping[str, Detector],
    arms: Mapping[str, Judged],
    out: Path,
) -> dict[str, float]:
    """Tables, plot and metrics (`detect/...`, of the tuned model `detect/tuned_...`).

    `own`: the tuned model's own detectors, judged on its words as `own_...`.
    """
    metrics: dict[str, float] = {}
    reports: dict[str, detection.Report] = {}
    further: dict[str, detection.Report] = {}
    calibrated: dict[str, dict[str, detection.Calibration]] = {}
    draws = {"resamples": config.bootstrap, "seed": config.seed}
    for arm, prefix in (("base", "detect/"), ("tuned", "detect/tuned_")):
        tokens = arms[arm].tokens
        reports[arm] = early_warning.report(tokens, detectors, **draws)
        calibrated[arm] = early_warning.calibrations(tokens, detectors) if reports[arm] else {}
        if not reports[arm]:
            is_known = len(described(arms[arm].responses)) > 0
            problem = early_warning.problem(tokens) if is_known else f"no {OBJECTS}"
            print(one_line(f"early warning not judged on {arm}: {problem}"), flush=True)
        values = early_warning.metrics(reports[arm], calibrated[arm])
        further[arm] = feature_sets.report(tokens, sets, **draws)
        risks_of_sets = early_warning.calibrations(tokens, sets) if further[arm] else {}
        values |= feature_sets.metrics(reports[arm], further[arm], risks_of_sets)
        metrics |= {prefix + key: value for key, value in values.items()}
    named = {f"own_{name}": detector for name, detector in own.items()}
    judged = early_warning.judged(arms["tuned"].tokens, named, {}, **draws) if named else {}
    for name, of in judged.items():
        metrics[f"detect/tuned_auroc_{name}"] = of["auroc"].point
    further["tuned"] |= judged
    every = {arm: {**reports[arm], **further[arm]} for arm in reports}
    plots.csv(early_warning.table(every), out / "detection.csv")
    plots.csv(early_warning.calibration_table(calibrated["base"]), out / "calibration.csv")
    if report := reports["base"]:
        tokens, risks = arms["base"].tokens, calibrated["base"]
        figure = warning_plots.warning_figure(tokens, detectors, report, risks)
        plots.save(figure, out / "figures" / "early_warning.png")
    return metrics


def _curves(arms: Mapping[str, Judged], out: Path) -> None:
    """`curves.csv` by position, `degradation.csv` by relative position, a plot for each signal."""
    both = ([of(one.tokens, arm) for arm, one in arms.items()] for of in (curves, relative_curves))
    absolute, relative = (pd.concat(parts, ignore_index=True) for parts in both)
    plots.csv(absolute, out / "curves.csv")
    every = relative[relative.split == "all"]
    long = every.assign(curve=every.arm + "_" + every.signal)
    wide = long.pivot(index="position", columns="curve", values="mean")
    plots.csv(wide.reset_index(), out / "degradation.csv")
    for signal in DRAWN if len(relative) else ():
        figure = plots.curves_figure(absolute, relative, signal)
        plots.save(figure, out / "figures" / f"curves_{signal}.png")


def _strip(inputs: _Inputs, detectors: Mapping[str, Detector], base: Judged, out: Path) -> None:
    """One wrong answer of the base model, token by token, with the risk read from attention."""
    traces = pd.read_parquet(inputs.answers / "traces.parquet")
    traced = base.responses[base.responses.id.isin(traces.id)]
    if traced.empty:
        return
    row = longest_wrong(traced)
    tokens = base.tokens[base.tokens.id == row.id].reset_index(drop=True)
    if tokens.empty:
        return
    trace = warning_plots.Trace.of(row, tokens, traces[traces.id == row.id])
    risk = early_warning.risk(detectors[early_warning.ATTENTION], tokens) if detectors else None
    example = inputs.examples["test"][row.id]
    figure = warning_plots.strip_figure(open_images(example), trace, risk, example.question)
    plots.save(figure, out / "figures" / "answer_strip.png")


def longest_wrong(responses: pd.DataFrame) -> Any:
    """What the strip shows: of the descriptions with something absent (or all), the richest."""
    describe = responses[responses.kind == "describe"].sort_values("id")
    # Not picked by how well the detector does on it.
    wrong = describe[sizes(describe.hallucinated) > 0]
    among = wrong if len(wrong) else describe
    return among.iloc[int(sizes(among.objects_mentioned).to_numpy().argmax())]
