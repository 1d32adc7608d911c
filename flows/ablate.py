"""Compare the arms of params.yaml: which part of the method does the work, on how many seeds, and at what cost.

    python -m flows.ablate                          # every arm on every seed of section `arms`
    python -m flows.ablate --arms base,steering     # some of them
    python -m flows.ablate --help

Every arm that trains may choose its learning rate on the validation split of the first seed, from the same list. The
test split is then measured once per arm and seed. Stages and measurements are kept by content (`flows/cells.py`), so a
comparison that was stopped goes on where it was, and one more arm costs only itself. Writes `results/arms/`: table.md,
table.csv (one row per arm and seed) and arms.png; in MLflow, one run with a child per arm and seed.
"""

import argparse
import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from prefect import flow, task
from prefect.cache_policies import NO_CACHE
from prefect.logging import get_run_logger

from adapt import launch, params, tracking
from adapt.arms import Arm, ArmsConfig, arm_of, changed
from adapt.comparison import chart, hal_difference, markdown, summary
from adapt.params import InputError
from flows import cells
from flows.retrain import prefect_here

COVER_LOSS = 1.0  # points of Cover that a learning rate may cost against base on validation


@dataclass(frozen=True, kw_only=True)
class Result:
    """One arm on one seed and split: its metrics, and the answers they come from."""

    arm: str
    seed: int
    metrics: dict[str, float]
    responses: Path


def _silent(step: int, metrics: Mapping[str, float]) -> None:
    """Curves of the many trainings of a comparison are not kept; their history.csv is."""


@task(name="measure", task_run_name="{arm.name}-seed-{seed}-{split}", cache_policy=NO_CACHE)
def measure(root: Path, content: Mapping[str, Any], arm: Arm, seed: int, split: str) -> Result:
    """Train the arm if it trains, then answer every question of the split."""
    content = {**content, "seed": seed}
    if arm.train is None:
        model = cells.run(root, content, "base", _silent)
    else:
        model = cells.run(root, changed(content, "train", arm.changes), "train", _silent)
    entry = cells.graph(root)["evaluate"]
    steer = None if arm.steer is None else asdict(arm.steer)
    code = cells.key(root, content, {**entry, "params": ["anchor", "max_new_tokens"]}, _placeholders(entry, model))
    folder = cells.home(root) / f"measured-{cells.digest(code, model.folder.name, steer, split)}"
    if not (folder / "metrics.json").exists():
        with launch.published(folder) as out:
            _answer(content, model, arm, split, out)
    metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    return Result(arm=arm.name, seed=seed, metrics=metrics, responses=folder / "responses.parquet")


def _placeholders(entry: Mapping[str, Any], model: cells.Cell) -> dict[str, Path]:
    """For the key of a measurement: what it reads beside the data is the measured model, whichever stage made it."""
    return {stage: model.all["data"] if stage == "data" else model.folder for stage in cells.needs(entry)}


def _answer(content: Mapping[str, Any], model: cells.Cell, arm: Arm, split: str, out: Path) -> None:
    from adapt.attention.anchor import AnchorConfig
    from adapt.data.schema import read_split, read_vocabulary
    from adapt.measure import Bench

    splits = model.all["data"] / "splits"
    bench = Bench(
        model.folder / "model",
        read_split(splits / f"{split}.parquet"),
        read_vocabulary(splits / "vocabulary.json"),
        anchor=params.load(content, "anchor", AnchorConfig),
        batch=content["evaluate"]["batch"],
        max_new_tokens=content["max_new_tokens"],
        seed=content["seed"],
    )
    measured = bench.measure(arm.name, arm.steer)
    measured.responses.to_parquet(out / "responses.parquet")
    metrics = {**measured.metrics, **({"seconds": model.seconds} if arm.train else {})}
    (out / "metrics.json").write_text(json.dumps(metrics, indent=2, sort_keys=True) + "\n")


def tuned(root: Path, content: Mapping[str, Any], arm: Arm, config: ArmsConfig) -> Arm:
    """The arm with the learning rate that does best on the first seed's validation split: the lowest Hal among those
    that keep Cover, else the highest Cover.
    """
    if arm.train is None:
        return arm
    trials = [_with_rate(content, arm, rate) for rate in config.learning_rates]
    if len(trials) == 1:
        return trials[0]
    seed, log = config.seeds[0], get_run_logger()
    floor = measure(root, content, arm_of(content, "base"), seed, "validation").metrics["cover"] - COVER_LOSS
    found = [measure(root, content, trial, seed, "validation").metrics for trial in trials]
    for trial, metrics in zip(trials, found, strict=True):
        rate, hal, cover = trial.changes["learning_rate"], metrics["hal"], metrics["cover"]
        log.info(f"{arm.name}: learning rate {rate:g} has Hal {hal:.1f}, Cover {cover:.1f} on validation")
    keeps = [i for i, metrics in enumerate(found) if metrics["cover"] >= floor]
    best = (
        min(keeps, key=lambda i: found[i]["hal"]) if keeps else max(range(len(found)), key=lambda i: found[i]["cover"])
    )
    return trials[best]


def _with_rate(content: Mapping[str, Any], arm: Arm, rate: float) -> Arm:
    from adapt.preference.settings import Config

    changes = {**arm.changes, "learning_rate": rate}
    train = params.load(changed(content, "train", changes), "train", Config)
    return Arm(name=arm.name, train=train, steer=arm.steer, changes=changes)


@flow(name="ablate", flow_run_name="ablate", validate_parameters=False)
def ablate(root: Path, content: Mapping[str, Any], names: Sequence[str]) -> str:
    """Measure the arms `names` on every seed; returns the table in Markdown."""
    config = params.load(content, "arms", ArmsConfig)
    where = params.load(content, "tracking", tracking.TrackingConfig)
    arms = [arm_of(content, name) for name in names]
    with tracking.stage_run("arms", config, where, root) as run, _parent(run.run_id):
        chosen = [tuned(root, content, arm, config) for arm in arms]
        results = []
        for seed in config.seeds:
            for arm in chosen:
                results.append(measure(root, content, arm, seed, "test"))
                _child(root, where, arm, results[-1])
                get_run_logger().info(_line(results[-1]))
        table = report(root, content, config, results)
        for path in sorted((root / "results" / "arms").iterdir()):
            run.store.log_artifact(run.run_id, str(path))
        run.store.set_tag(run.run_id, "mlflow.note.content", table)
    return table


def report(root: Path, content: Mapping[str, Any], config: ArmsConfig, results: Sequence[Result]) -> str:
    """Write `results/arms/`; returns the table."""
    by_arm: dict[str, list[Result]] = {}
    for result in results:
        by_arm.setdefault(result.arm, []).append(result)
    answers = {arm: [pd.read_parquet(r.responses) for r in of_arm] for arm, of_arm in by_arm.items()}
    resamples = content["evaluate"]["bootstrap"]
    against = {
        other: {
            a: hal_difference(answers[a], answers[other], resamples, content["seed"]) for a in answers if a != other
        }
        for other in dict.fromkeys(("base", config.reference))
        if other in answers
    }
    long = pd.DataFrame([{"arm": r.arm, "seed": r.seed, **r.metrics} for r in results])
    table = markdown(summary(long, against))
    with launch.published(root / "results" / "arms") as out:
        (out / "table.md").write_text(table, encoding="utf-8")
        long.to_csv(out / "table.csv", index=False)
        chart(long, out / "arms.png")
    return table


def _child(root: Path, where: tracking.TrackingConfig, arm: Arm, result: Result) -> None:
    """An MLflow run for one arm and seed, so that arms can be compared there."""
    stage, config = ("train", arm.train) if arm.train else ("steer", arm.steer or Plain())
    with tracking.stage_run(stage, config, where, root, f"{arm.name}, seed {result.seed}") as run:
        for name, value in sorted(result.metrics.items()):
            run.store.log_metric(run.run_id, f"test/{name}", value)


@dataclass(frozen=True)
class Plain:
    """Configuration of an arm that neither trains nor steers."""


def _line(result: Result) -> str:
    hal, cover = result.metrics["hal"], result.metrics["cover"]
    return f"{result.arm}, seed {result.seed}: Hal {hal:.1f}, Cover {cover:.1f} on test"


@contextmanager
def _parent(run_id: str) -> Iterator[None]:
    before = os.environ.get("ADAPT_PARENT_RUN")
    os.environ["ADAPT_PARENT_RUN"] = run_id
    try:
        yield
    finally:
        os.environ.pop("ADAPT_PARENT_RUN")
        if before is not None:
            os.environ["ADAPT_PARENT_RUN"] = before


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code: 2 for a user's mistake."""
    parser = argparse.ArgumentParser(
        prog="python -m flows.ablate", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--arms", metavar="A,B", help="only these arms of params.yaml (default: all)")
    parser.add_argument("--seeds", metavar="N,M", help="these seeds instead of those of params.yaml")
    given = parser.parse_args(arguments)
    root = Path.cwd()
    try:
        content = params.read(root / "params.yaml")
        launch.configs(content)
        if given.seeds:
            content = changed(content, "arms", {"seeds": [_number(text) for text in given.seeds.split(",")]})
        content = changed(content, "train", {"workers": 0})  # one process trains; the arms share it
        names = given.arms.split(",") if given.arms else list(content["arms"]["named"])
        for name in names:
            arm_of(content, name)
        with prefect_here(root):
            table = ablate(root, content, names)
    except InputError as error:
        print(f"ablate: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("ablate: stopped; what was measured is kept, the next run goes on from there", file=sys.stderr)
        return 130
    print(f"\n{table}\nresults/arms: table.md, table.csv, arms.png; in MLflow: make ui")
    return 0


def _number(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise InputError(f"--seeds: {text!r} is not a whole number") from None


if __name__ == "__main__":
    raise SystemExit(main())
