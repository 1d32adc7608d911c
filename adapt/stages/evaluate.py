"""Stage `evaluate`: base and tuned model on the test split, plain and with steering.

Hallucination (CHAIR_i, Hal, Cog) and what the model still says (Cover, length), yes/no questions as POPE, colour
questions, and the attention-degradation curves of the same generation pass. Writes `responses.parquet` (every answer,
hallucinated words marked), `curves.csv`, `figures/` and before / after `panels/`.
"""

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adapt.attention.anchor import AnchorConfig
from adapt.attention.steer import SteerConfig
from adapt.params import require, shared

if TYPE_CHECKING:
    import pandas as pd

    from adapt.figures import PanelRow
    from adapt.measure import Bench, Measured

Log = Callable[[int, Mapping[str, float]], None]


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

    from adapt.attention.curves import curves

    arms: dict[str, Measured] = {}
    for name, stage in (("base", "base"), ("tuned", "train")):
        bench = _bench(config, results, results / stage / "model")
        arms[name] = bench.measure(name, None)
        arms[f"{name}_steered"] = bench.measure(f"{name}_steered", config.steer)
    responses = pd.concat([m.responses for m in arms.values()], ignore_index=True)
    responses.to_parquet(out / "responses.parquet", index=False)
    frame = pd.concat([curves(m.tokens, arm) for arm, m in arms.items()], ignore_index=True)
    frame.to_csv(out / "curves.csv", index=False, float_format="%.6g", lineterminator="\n")
    metrics = {f"{arm}/{key}": value for arm, m in arms.items() for key, value in m.metrics.items()}
    metrics |= _differences(config, arms["tuned"].responses, arms["base"].responses)
    _draw(config, results, responses, frame, metrics, out)
    return metrics


def measure(config: Config, model_dir: Path, results: Path) -> tuple["pd.DataFrame", dict[str, float]]:
    """Any model on the workspace's test split, plain, as arm "tuned": for a model that is outside the workspace."""
    measured = _bench(config, results, model_dir).measure("tuned", None)
    return measured.responses, {f"tuned/{key}": value for key, value in measured.metrics.items()}


def _bench(config: Config, results: Path, model_dir: Path) -> "Bench":
    from adapt.data.schema import read_split, read_vocabulary
    from adapt.measure import Bench

    splits = results / "data" / "splits"
    return Bench(
        model_dir,
        read_split(splits / "test.parquet"),
        read_vocabulary(splits / "vocabulary.json"),
        anchor=config.anchor,
        batch=config.batch,
        max_new_tokens=config.max_new_tokens,
        seed=config.seed,
    )


def _differences(config: Config, after: "pd.DataFrame", before: "pd.DataFrame") -> dict[str, float]:
    """Tuned minus base with 95 % intervals from a paired bootstrap over images: Hal, Cover, CHAIR_i (points)."""
    from adapt.metrics.bootstrap import difference

    pairs = {
        "hal": (lambda t: t["hallucinated"].map(len).gt(0), lambda t: t["hallucinated"].map(len).ge(0)),
        "cover": (lambda t: t["covered"].map(len), lambda t: t["truth"].map(len)),
        "chair_i": (lambda t: t["hallucinated"].map(len), lambda t: t["objects_mentioned"].map(len)),
    }
    after, before = (t[t.kind == "describe"].sort_values("id") for t in (after, before))
    found: dict[str, float] = {}
    for name, (above, below) in pairs.items():
        change = difference(above(after).to_numpy(int), below(after).to_numpy(int), above(before).to_numpy(int),
                            below(before).to_numpy(int), resamples=config.bootstrap, seed=config.seed)  # fmt: skip
        found |= {f"difference/{name}": change.point, f"difference/{name}_low": change.low,
                  f"difference/{name}_high": change.high}  # fmt: skip
    return found


def _draw(
    config: Config,
    results: Path,
    responses: "pd.DataFrame",
    curves: "pd.DataFrame",
    metrics: Mapping[str, float],
    out: Path,
) -> None:
    from adapt import figures
    from adapt.attention.signals import SIGNALS
    from adapt.data.schema import open_image, read_split

    for folder in ("figures", "panels"):
        (out / folder).mkdir()
    for signal in SIGNALS:
        figures.save(figures.curves_figure(curves, signal), out / "figures" / f"curves_{signal}.png")
    figures.save(figures.before_after_figure(metrics), out / "figures" / "before_after.png")
    examples = {e.id: e for e in read_split(results / "data" / "splits" / "test.parquet")}
    shown = responses.set_index(["id", "arm"])
    for identity in telling(responses)[: config.panels]:
        rows = [_panel_row(title, shown.loc[identity, arm]) for title, arm in (("before", "base"), ("after", "tuned"))]
        example = examples[identity]
        figures.panel(open_image(example), rows, out / "panels" / f"{identity}.png", title=example.question)


def _panel_row(title: str, row: Any) -> "PanelRow":
    from adapt.figures import PanelRow

    return PanelRow(title=title, marked=row["marked"], heat=row["heat"].reshape(row["grid"]))


def telling(responses: "pd.DataFrame") -> list[str]:
    """Descriptions in the order in which they tell something: where the tuned model hallucinates less, or more."""
    describe = responses[responses.kind == "describe"]
    count = describe.assign(n=describe.hallucinated.map(len)).pivot(index="id", columns="arm", values="n")
    change = (count["tuned"] - count["base"]).sort_values(kind="stable")
    better, worse, same = change[change < 0], change[change > 0], change[change == 0]
    # One failure among three successes: a panel that shows only successes would be an advertisement.
    order, failures = [], list(worse.index)
    for i, identity in enumerate(better.index):
        order.append(identity)
        if i % 3 == 2 and failures:
            order.append(failures.pop(0))
    return [*order, *failures, *same.index]


if __name__ == "__main__":
    from adapt.launch import launch

    launch("evaluate")
