"""What stage `evaluate` writes: judged answers, metrics, tables and plots of all arms.

Everything is worked out from the tables of stage `answer` and the ground truth; see
`adapt/stages/evaluate.py` for the files.
"""

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from adapt.data.schema import Example, Vocabulary, open_images, read_vocabulary
from adapt.data.tables import read_split
from adapt.evaluation import detection, early_warning, plots, warning_plots
from adapt.evaluation.degradation import DRAWN, curves, relative_curves
from adapt.evaluation.detection import Detector
from adapt.evaluation.judge import Judged, judge
from adapt.evaluation.settings import Config
from adapt.metrics.bootstrap import difference
from adapt.metrics.headline import ARMS

CSV: dict[str, Any] = {"index": False, "float_format": "%.6g", "lineterminator": "\n"}
PANEL = ("base", "tuned")  # the arms of a before / after panel
# of Hal, Cover and CHAIR_i: what is counted in an answer, and what it is a share of
DIFFERENCES = {
    "hal": (lambda t: t["hallucinated"].map(len).gt(0), lambda t: t["hallucinated"].map(len).ge(0)),
    "cover": (lambda t: t["covered"].map(len), lambda t: t["truth"].map(len)),
    "chair_i": (lambda t: t["hallucinated"].map(len), lambda t: t["objects_mentioned"].map(len)),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Inputs:
    """The tables of stage `answer`, and the splits that were asked about, each read once."""

    answers: Path
    splits: Path
    responses: pd.DataFrame
    tokens: pd.DataFrame
    vocabulary: Vocabulary
    examples: Mapping[str, Sequence[Example]]

    def judged(self, arm: str, split: str, anchor_tokens: int) -> Judged:
        """One arm on one split."""
        both = (self.responses, self.tokens)
        responses, tokens = (t[(t.arm == arm) & (t.split == split)] for t in both)
        return judge(responses, tokens, self.examples[split], self.vocabulary, anchor_tokens)

    def test_example(self, identity: str) -> Example:
        """A question of the test split."""
        return next(row for row in self.examples["test"] if row.id == identity)


def write(config: Config, answers: Path, splits: Path, out: Path) -> dict[str, float]:
    """Judge what stage `answer` left in `answers`, write everything into `out`; returns metrics."""
    names = ("responses", "tokens")
    tables = {name: pd.read_parquet(answers / f"{name}.parquet") for name in names}
    inputs = _Inputs(
        answers=answers,
        splits=splits,
        vocabulary=read_vocabulary(splits / "vocabulary.json"),
        examples={name: read_split(splits / f"{name}.parquet") for name in ("validation", "test")},
        **tables,
    )
    for folder in ("figures", "panels"):
        (out / folder).mkdir()
    # 1. Judge every arm on the test split.
    K = config.anchor.anchor_tokens
    arms = {arm: inputs.judged(arm, "test", K) for arm in ARMS}
    judged = pd.concat([arm.responses for arm in arms.values()], ignore_index=True)
    judged.to_parquet(out / "judged.parquet", index=False)
    metrics = {f"{arm}/{key}": v for arm, one in arms.items() for key, v in one.metrics.items()}
    metrics |= _differences(config, arms["tuned"].responses, arms["base"].responses)
    # 2. Fit the early warning on validation words only, and judge it on the test split.
    detectors = _detectors(config, inputs, out)
    metrics |= _warning(config, detectors, arms, out)
    # 3. Tables and plots.
    _curves(arms, out)
    _strip(inputs, detectors, arms["base"], out)
    plots.save(plots.before_after_figure(metrics), out / "figures" / "before_after.png")
    _panels(config, inputs, judged, out)
    return metrics


def _differences(config: Config, after: pd.DataFrame, before: pd.DataFrame) -> dict[str, float]:
    """Tuned minus base, in points, with 95 % intervals from a paired bootstrap over images."""
    after, before = (t[t.kind == "describe"].sort_values("id") for t in (after, before))
    metrics: dict[str, float] = {}
    for name, (above, below) in DIFFERENCES.items():
        a, b, c, d = (part(t).to_numpy(int) for t in (after, before) for part in (above, below))
        change = difference(a, b, c, d, resamples=config.bootstrap, seed=config.seed)
        key = f"difference/{name}"
        metrics |= {key: change.point, f"{key}_low": change.low, f"{key}_high": change.high}
    return metrics


def _detectors(config: Config, inputs: _Inputs, out: Path) -> dict[str, Detector]:
    """Detectors fitted on the base model's descriptions of the validation split.

    `detector.json` keeps them with what they were fitted on, or says why there are none.
    """
    path = inputs.splits / "validation.parquet"
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    source: dict[str, str | int] = {"split": "validation", "data_sha256": digest}
    detectors: dict[str, Detector] = {}
    problem = "the validation split has no describe questions"
    if (inputs.responses.split == "validation").any():
        validation = inputs.judged("base", "validation", config.anchor.anchor_tokens)
        words, labels = early_warning.object_words(validation.tokens)
        detectors, problem = early_warning.fitted(words), early_warning.problem(words)
        source |= {
            "model": json.loads((inputs.answers / "models.json").read_text())["base"],
            "images": int(words.image_id.nunique()),
            "words": len(words),
            "hallucinated": int(labels.sum()),
        }
    if problem:
        print(f"no detector for the early warning: {problem}", flush=True)
    detection.write(out / "detector.json", detectors, source, problem)
    return detectors


def _warning(
    config: Config, detectors: Mapping[str, Detector], arms: Mapping[str, Judged], out: Path
) -> dict[str, float]:
    """Tables, plot and metrics (`detect/...`, of the tuned model `detect/tuned_...`)."""
    metrics: dict[str, float] = {}
    reports: dict[str, detection.Report] = {}
    calibrated: dict[str, dict[str, detection.Calibration]] = {}
    draws = {"resamples": config.bootstrap, "seed": config.seed}
    for arm, prefix in (("base", "detect/"), ("tuned", "detect/tuned_")):
        tokens = arms[arm].tokens
        reports[arm] = early_warning.report(tokens, detectors, **draws)
        calibrated[arm] = early_warning.calibrations(tokens, detectors) if reports[arm] else {}
        if not reports[arm]:
            problem = early_warning.problem(tokens)
            print(f"early warning not judged on {arm}: {problem}", flush=True)
        values = early_warning.metrics(reports[arm], calibrated[arm])
        metrics |= {prefix + key: value for key, value in values.items()}
    early_warning.table(reports).to_csv(out / "detection.csv", **CSV)
    early_warning.calibration_table(calibrated["base"]).to_csv(out / "calibration.csv", **CSV)
    if report := reports["base"]:
        tokens, risks = arms["base"].tokens, calibrated["base"]
        figure = warning_plots.warning_figure(tokens, detectors, report, risks)
        plots.save(figure, out / "figures" / "early_warning.png")
    return metrics


def _curves(arms: Mapping[str, Judged], out: Path) -> None:
    """`curves.csv` by position, `degradation.csv` by relative position, a plot for each signal."""
    both = ([of(one.tokens, arm) for arm, one in arms.items()] for of in (curves, relative_curves))
    absolute, relative = (pd.concat(parts, ignore_index=True) for parts in both)
    absolute.to_csv(out / "curves.csv", **CSV)
    every = relative[relative.split == "all"]
    long = every.assign(curve=every.arm + "_" + every.signal)
    wide = long.pivot(index="position", columns="curve", values="mean")
    wide.reset_index().to_csv(out / "degradation.csv", **CSV)
    for signal in DRAWN:
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
    example = inputs.test_example(row.id)
    figure = warning_plots.strip_figure(open_images(example), trace, risk, example.question)
    plots.save(figure, out / "figures" / "answer_strip.png")


def longest_wrong(responses: pd.DataFrame) -> Any:
    """What the strip shows: of the descriptions with something absent (or all), the richest."""
    describe = responses[responses.kind == "describe"].sort_values("id")
    # Not picked by how well the detector does on it.
    wrong = describe[describe.hallucinated.map(len) > 0]
    among = wrong if len(wrong) else describe
    return among.iloc[int(among.objects_mentioned.map(len).to_numpy().argmax())]


def _panels(config: Config, inputs: _Inputs, judged: pd.DataFrame, out: Path) -> None:
    """Panels of descriptions that changed."""
    by_id = judged.set_index(["id", "arm"])
    for identity in most_changed(judged)[: config.panels]:
        example = inputs.test_example(identity)
        rows = [_panel_row(ARMS[arm], by_id.loc[identity, arm]) for arm in PANEL]
        path = out / "panels" / f"{identity}.png"
        plots.panel(open_images(example), rows, path, example.question)


def _panel_row(title: str, row: Any) -> plots.PanelRow:
    maps = zip(row["heats"], row["grids"], strict=True)
    heats = [heat.reshape(grid) for heat, grid in maps]
    return plots.PanelRow(title=title, marked=row["marked"], heats=heats)


def most_changed(judged: pd.DataFrame) -> Sequence[str]:
    """Ids of descriptions, those first in which the tuned model hallucinates less, or more."""
    describe = judged[judged.kind == "describe"]
    wrong = describe.assign(n=describe.hallucinated.map(len))
    count = wrong.pivot(index="id", columns="arm", values="n")
    change = (count["tuned"] - count["base"]).sort_values(kind="stable")
    better, worse, same = change[change < 0], change[change > 0], change[change == 0]
    # One failure among three successes: panels that show only successes would be an advertisement.
    order, failures = [], list(worse.index)
    for i, identity in enumerate(better.index):
        order.append(identity)
        if i % 3 == 2 and failures:
            order.append(failures.pop(0))
    return [*order, *failures, *same.index]
