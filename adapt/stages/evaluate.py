"""Stage `evaluate`: base and tuned model on the test split, plain and with steering.

Hallucination (CHAIR_i, Hal, Cog) and what the model still says (Cover, length), yes/no questions as
POPE, colour questions, and the attention-degradation curves of the same generation pass. Early
warning: detectors of hallucinated words, fitted on what the base model says of the validation
split, judged on the test split.

Writes `responses.parquet` (every answer, hallucinated words marked), `curves.csv` by position and
`degradation.csv` by relative position (a column per arm and signal), `detector.json`,
`detection.csv` and `calibration.csv` (how well it warns), `figures/` and before / after `panels/`.
"""

import dataclasses
import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adapt.attention.anchor import AnchorConfig
from adapt.generation.steer import SteerConfig
from adapt.params import require, shared

if TYPE_CHECKING:
    import pandas as pd

    from adapt.data.schema import Example
    from adapt.evaluation.detection import Detector
    from adapt.evaluation.plots import PanelRow
    from adapt.generation.bench import Bench, Measured, Trace

Log = Callable[[int, Mapping[str, float]], None]
CSV: dict[str, Any] = {"index": False, "float_format": "%.6g", "lineterminator": "\n"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """Section `evaluate`, with the shared `anchor`, `steer` and `seed`."""

    batch: int
    bootstrap: int
    panels: int
    anchor: AnchorConfig = shared()
    steer: SteerConfig = shared()
    max_new_tokens: int = shared()
    seed: int = shared()

    def __post_init__(self) -> None:
        for key in ("batch", "max_new_tokens", "bootstrap"):
            require(getattr(self, key) >= 1, key, f"must be at least 1, got {getattr(self, key)}")
        require(self.panels >= 0, "panels", f"must not be negative, got {self.panels}")


def run(config: Config, results: Path, out: Path, log: Log) -> dict[str, float]:
    """Measure the four arms and draw them; see the module docstring."""
    import pandas as pd

    detectors = _detectors(config, results, out)
    arms: dict[str, Measured] = {}
    traced: tuple[Example, Trace] | None = None
    for name, stage in (("base", "base"), ("tuned", "train")):
        bench = _bench(config, results, results / stage / "model")
        arms[name] = bench.measure(name, None)
        arms[f"{name}_steered"] = bench.measure(f"{name}_steered", config.steer)
        if traced is None:  # the base model: after the next turn it is gone
            identity = longest_wrong(arms[name].responses)
            example = next(e for batch in bench.batches for e in batch if e.id == identity)
            traced = example, bench.trace(example)
    assert traced is not None
    responses = pd.concat([m.responses for m in arms.values()], ignore_index=True)
    responses.to_parquet(out / "responses.parquet", index=False)
    metrics = {f"{arm}/{key}": value for arm, m in arms.items() for key, value in m.metrics.items()}
    metrics |= _differences(config, arms["tuned"].responses, arms["base"].responses)
    for folder in ("figures", "panels"):
        (out / folder).mkdir()
    metrics |= _warning(config, detectors, arms, traced, out)
    _degradation(arms, out)
    _draw(config, results, responses, metrics, out)
    return metrics


def measure(
    config: Config, model_dir: Path, results: Path
) -> tuple["pd.DataFrame", dict[str, float]]:
    """Any model on the workspace's test split, plain, as arm "tuned": for a model that is outside
    the workspace.
    """
    measured = _bench(config, results, model_dir).measure("tuned", None)
    return measured.responses, {f"tuned/{key}": value for key, value in measured.metrics.items()}


def _bench(
    config: Config, results: Path, model_dir: Path, rows: Sequence["Example"] | None = None
) -> "Bench":
    """A model and the rows it is asked about: the test split, or others."""
    from adapt.data.schema import read_split, read_vocabulary
    from adapt.generation.bench import Bench

    splits = results / "data" / "splits"
    return Bench(
        model_dir,
        read_split(splits / "test.parquet") if rows is None else rows,
        read_vocabulary(splits / "vocabulary.json"),
        anchor=config.anchor,
        batch=config.batch,
        max_new_tokens=config.max_new_tokens,
        seed=config.seed,
    )


def _differences(config: Config, after: "pd.DataFrame", before: "pd.DataFrame") -> dict[str, float]:
    """Tuned minus base with 95 % intervals from a paired bootstrap over images: Hal, Cover, CHAIR_i
    (points).
    """
    from adapt.metrics.bootstrap import difference

    pairs = {
        "hal": (
            lambda t: t["hallucinated"].map(len).gt(0),
            lambda t: t["hallucinated"].map(len).ge(0),
        ),
        "cover": (lambda t: t["covered"].map(len), lambda t: t["truth"].map(len)),
        "chair_i": (
            lambda t: t["hallucinated"].map(len),
            lambda t: t["objects_mentioned"].map(len),
        ),
    }
    after, before = (t[t.kind == "describe"].sort_values("id") for t in (after, before))
    found: dict[str, float] = {}
    for name, (above, below) in pairs.items():
        change = difference(
            above(after).to_numpy(int),
            below(after).to_numpy(int),
            above(before).to_numpy(int),
            below(before).to_numpy(int),
            resamples=config.bootstrap,
            seed=config.seed,
        )
        found |= {
            f"difference/{name}": change.point,
            f"difference/{name}_low": change.low,
            f"difference/{name}_high": change.high,
        }
    return found


def _detectors(config: Config, results: Path, out: Path) -> "dict[str, Detector]":
    """Detectors fitted on the base model's descriptions of the validation split; `detector.json`
    says why if none.
    """
    from adapt.data.schema import read_split
    from adapt.evaluation import detection, early_warning
    from adapt.models.identity import content_key

    path = results / "data" / "splits" / "validation.parquet"
    rows = [e for e in read_split(path) if e.kind == "describe"]
    source: dict[str, str | int] = {
        "split": "validation",
        "data_sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
    }
    fitted: dict[str, Detector] = {}
    note = "the validation split has no describe questions"
    if rows:
        bench = _bench(config, results, results / "base" / "model", rows)
        words, labels = early_warning.object_words(
            bench.measure("base, validation split", None).tokens
        )
        fitted, note = early_warning.fitted(words), early_warning.problem(words)
        source |= {
            "model": content_key(bench.model, {}),
            "images": int(words.image_id.nunique()),
            "words": len(words),
            "hallucinated": int(labels.sum()),
        }
    if note:
        print(f"no detector for the early warning: {note}", flush=True)
    detection.write(out / "detector.json", fitted, source, note)
    return fitted


def _warning(
    config: Config,
    detectors: "Mapping[str, Detector]",
    arms: "Mapping[str, Measured]",
    traced: "tuple[Example, Trace]",
    out: Path,
) -> dict[str, float]:
    """Tables, figures and metrics (`detect/...`, of the tuned model `detect/tuned_...`) of the
    early warning.
    """
    from adapt.data.schema import open_image
    from adapt.evaluation import early_warning, plots, warning_plots

    plain = {arm: arms[arm].tokens for arm in ("base", "tuned")}
    reports = {
        arm: early_warning.report(t, detectors, resamples=config.bootstrap, seed=config.seed)
        for arm, t in plain.items()
    }
    for arm in (arm for arm, found in reports.items() if not found):
        print(f"early warning not judged on {arm}: {early_warning.problem(plain[arm])}", flush=True)
    calibrated = {
        arm: early_warning.calibrations(t, detectors) for arm, t in plain.items() if reports[arm]
    }
    early_warning.table(reports).to_csv(out / "detection.csv", **CSV)
    early_warning.calibration_table(calibrated.get("base", {})).to_csv(
        out / "calibration.csv", **CSV
    )
    if reports["base"]:
        drawn = warning_plots.warning_figure(
            plain["base"], detectors, reports["base"], calibrated["base"]
        )
        plots.save(drawn, out / "figures" / "early_warning.png")
    example, trace = traced
    if trace.pieces:
        risk = (
            early_warning.risk(detectors[early_warning.ATTENTION], trace.tokens)
            if detectors
            else None
        )
        strip = warning_plots.strip_figure(open_image(example), trace, risk, example.question)
        plots.save(strip, out / "figures" / "answer_strip.png")
    found: dict[str, float] = {}
    for arm, start in (("base", "detect/"), ("tuned", "detect/tuned_")):
        values = early_warning.metrics(reports[arm], calibrated.get(arm, {}))
        found |= {start + key: value for key, value in values.items()}
    return found


def longest_wrong(responses: "pd.DataFrame") -> str:
    """Which description the strip shows: of those that name something absent (or of all), the one
    with most objects.
    """
    describe = responses[responses.kind == "describe"].sort_values("id")
    wrong = describe[
        describe.hallucinated.map(len) > 0
    ]  # not picked by how well the detector does on it
    among = wrong if len(wrong) else describe
    return str(among.id.iloc[int(among.objects_mentioned.map(len).to_numpy().argmax())])


def _degradation(arms: "Mapping[str, Measured]", out: Path) -> None:
    """Curves by position and by relative position: `curves.csv`, `degradation.csv`, a figure for
    each of `DRAWN`.
    """
    import pandas as pd

    from adapt.evaluation import plots
    from adapt.evaluation.degradation import DRAWN, curves, relative_curves

    absolute, relative = (
        pd.concat([of(m.tokens, arm) for arm, m in arms.items()], ignore_index=True)
        for of in (curves, relative_curves)
    )
    absolute.to_csv(out / "curves.csv", **CSV)
    every = relative[relative.split == "all"]
    wide = every.assign(curve=every.arm + "_" + every.signal).pivot(
        index="position", columns="curve", values="mean"
    )
    wide.reset_index().to_csv(out / "degradation.csv", **CSV)
    for signal in DRAWN:
        plots.save(
            plots.curves_figure(absolute, relative, signal),
            out / "figures" / f"curves_{signal}.png",
        )


def _draw(
    config: Config,
    results: Path,
    responses: "pd.DataFrame",
    metrics: Mapping[str, float],
    out: Path,
) -> None:
    from adapt.data.schema import open_image, read_split
    from adapt.evaluation import plots

    plots.save(plots.before_after_figure(metrics), out / "figures" / "before_after.png")
    examples = {e.id: e for e in read_split(results / "data" / "splits" / "test.parquet")}
    shown = responses.set_index(["id", "arm"])
    for identity in telling(responses)[: config.panels]:
        rows = [
            _panel_row(title, shown.loc[identity, arm])
            for title, arm in (("before", "base"), ("after", "tuned"))
        ]
        example = examples[identity]
        plots.panel(
            open_image(example), rows, out / "panels" / f"{identity}.png", title=example.question
        )


def _panel_row(title: str, row: Any) -> "PanelRow":
    from adapt.evaluation.plots import PanelRow

    return PanelRow(title=title, marked=row["marked"], heat=row["heat"].reshape(row["grid"]))


def telling(responses: "pd.DataFrame") -> list[str]:
    """Descriptions in the order in which they tell something: where the tuned model hallucinates
    less, or more.
    """
    describe = responses[responses.kind == "describe"]
    count = describe.assign(n=describe.hallucinated.map(len)).pivot(
        index="id", columns="arm", values="n"
    )
    change = (count["tuned"] - count["base"]).sort_values(kind="stable")
    better, worse, same = change[change < 0], change[change > 0], change[change == 0]
    # One failure among three successes: a panel that shows only successes would be an
    # advertisement.
    order, failures = [], list(worse.index)
    for i, identity in enumerate(better.index):
        order.append(identity)
        if i % 3 == 2 and failures:
            order.append(failures.pop(0))
    return [*order, *failures, *same.index]


if __name__ == "__main__":
    from adapt.launch import launch

    launch("evaluate")
