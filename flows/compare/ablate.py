"""Compare the arms of params.yaml: which part of the method does the work, on how many seeds, and
at what cost.

    # every arm on every seed of section `arms`
    python -m flows.compare.ablate
    python -m flows.compare.ablate --arms base,steering     # some of them
    python -m flows.compare.ablate --help

Every arm that trains may choose its learning rate on the validation split of the first seed, from
the same list. The test split is then measured once per arm and seed. Ray computes several things at
a time. Stages and measurements are kept by content (`flows/compare/cells.py`), so a comparison that
was stopped goes on where it was, and one more arm costs only itself. Writes `results/arms/`:
table.md, table.csv (one row per arm and seed) and arms.png; in MLflow, one run with a child per arm
and seed.
"""

import argparse
import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
from prefect import flow, task
from prefect.cache_policies import NO_CACHE
from prefect.logging import get_run_logger

from adapt import launch, params
from adapt.evaluation.comparison import chart, hal_difference, markdown, summary
from adapt.evaluation.judge import judge_split
from adapt.files import whole_folder
from adapt.params import InputError, Settings, require
from adapt.preference.settings import Config as TrainConfig
from adapt.stages import answer
from adapt.tracking import runs
from flows.compare import arms as arms_file
from flows.compare import cells, pool
from flows.compare.arms import Arm, ArmsConfig, arm_of, changed
from flows.compare.cells import Cell
from flows.retrain import prefect_here

KEPT = {
    "cover": 1.0,
    "pope_f1": 1.0,
}  # points that a learning rate may cost against base on validation


@dataclass(frozen=True, kw_only=True)
class Result:
    """One arm on one seed and split: its metrics, and the answers they come from."""

    arm: str
    seed: int
    metrics: dict[str, float]
    responses: Path


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """One arm on one seed and split, to be computed: the model it measures, and the measuring."""

    arm: Arm
    seed: int
    model: Cell
    cell: Cell

    @property
    def result(self) -> Result:
        """What came out, once it is computed."""
        cost = {"seconds": self.model.seconds} if self.arm.train else {}
        answers = self.cell.folder / "judged.parquet"
        return Result(
            arm=self.arm.name, seed=self.seed, metrics=self.cell.metrics | cost, responses=answers
        )


def measurement(
    root: Path, content: Mapping[str, Any], arm: Arm, seed: int, split: str
) -> Measurement:
    """Train the arm if it trains, then answer every question of the split."""
    content = {**content, "seed": seed}
    if arm.train:
        content = changed(content, "train", arm.changes)
    model = cells.stage(root, content, "train" if arm.train else "base")
    data = cells.stage(root, content, "data")
    # 1. What a measurement depends on: the code of both stages, the measured model and the data
    #    (whichever stage made the model, it stands where the graph has the tuned one), how the arm
    #    is steered, and the split.
    graph = cells.graph(root)
    deps = [dep for stage in ("answer", "evaluate") for dep in graph[stage]["deps"]]
    entry = {"deps": deps, "params": ["anchor", "answer", "max_new_tokens"]}
    read = {stage: data if stage == "data" else model for stage in cells.needs(entry)}
    code = cells.key(root, content, entry, read)
    steer = None if arm.steer is None else arm.steer.model_dump()
    name = cells.digest(code, model.folder.name, steer, split)
    # 2. How it is made: answered and judged by the stages' own code.
    make = partial(_measure, content, arm, split, model.folder / "model", data.folder / "splits")
    folder = cells.home(root) / f"measured-{name}"
    cell = Cell(f"measuring {arm.name} on {split}, seed {seed}", folder, make, (data, model))
    return Measurement(arm=arm, seed=seed, model=model, cell=cell)


def _measure(
    content: Mapping[str, Any], arm: Arm, split: str, model: Path, splits: Path, out: Path
) -> dict[str, float]:
    config = params.load(content, "answer", answer.Config)
    tables = answer.open_bench(config, model, splits, split).ask(arm.name, arm.steer)
    anchor_tokens = config.anchor.anchor_tokens
    judged = judge_split(tables.responses, tables.tokens, splits, split, anchor_tokens)
    judged.responses.to_parquet(out / "judged.parquet")
    return judged.metrics


@task(name="measure", task_run_name="measure-{split}", cache_policy=NO_CACHE)
def measure(
    root: Path,
    content: Mapping[str, Any],
    arms: Sequence[Arm],
    seeds: Sequence[int],
    split: str,
    jobs: int,
) -> list[Result]:
    """Every arm on every seed, seed by seed; logs what had to be computed, and about how long the
    rest takes.
    """
    wanted = [measurement(root, content, arm, seed, split) for seed in seeds for arm in arms]
    log, started = get_run_logger(), time.monotonic()
    for done, (cell, left) in enumerate(
        pool.run([one.cell for one in wanted], jobs, root), start=1
    ):
        minutes = (time.monotonic() - started) / done * left / 60
        log.info(f"{cell.title}: {cell.seconds:.0f} s; {left} to come, about {minutes:.0f} min")
    return [one.result for one in wanted]


def tuned(
    root: Path, content: Mapping[str, Any], arms: Sequence[Arm], config: ArmsConfig, jobs: int
) -> list[Arm]:
    """The arms that train with the learning rate that does best on the first seed's validation
    split: the lowest Hal among those that keep what `KEPT` names, else the one that loses least of
    it.
    """
    trials = {
        arm.name: [_with_rate(content, arm, rate) for rate in config.learning_rates]
        for arm in arms
        if arm.train
    }
    if not trials or len(config.learning_rates) == 1:
        return [trials[arm.name][0] if arm.train else arm for arm in arms]
    trying = [
        arm_of(content, config, "base"),
        *(trial for of_arm in trials.values() for trial in of_arm),
    ]
    base, *found = measure(root, content, trying, config.seeds[:1], "validation", jobs)
    by_arm = {name: [found.pop(0).metrics for _ in of_arm] for name, of_arm in trials.items()}
    for name, found in by_arm.items():
        for rate, metrics in zip(config.learning_rates, found, strict=True):
            said = ", ".join(
                f"{key} {metrics[key]:.1f}" for key in ("hal", *KEPT) if key in metrics
            )
            get_run_logger().info(f"{name}, learning rate {rate:g}, on validation: {said}")
    return [
        trials[arm.name][best(by_arm[arm.name], base.metrics)] if arm.train else arm for arm in arms
    ]


def best(found: Sequence[Mapping[str, float]], base: Mapping[str, float]) -> int:
    """The position of the best of `found`, which the rule of `tuned` chooses.

    >>> base = {"hal": 30.0, "cover": 95.0, "pope_f1": 94.0}
    >>> kept, lost = {"hal": 14.0, "cover": 94.5, "pope_f1": 95.0}, {"hal": 9.0, "cover": 95.0, "pope_f1": 86.0}
    >>> best([kept, lost], base), best([lost, {"hal": 20.0, "cover": 90.0, "pope_f1": 94.0}], base)
    (0, 1)
    """

    def order(i: int) -> tuple[float, float]:
        losses = [
            base[key] - found[i][key] - allowed for key, allowed in KEPT.items() if key in base
        ]
        return max(0.0, *losses), found[i]["hal"]

    return min(range(len(found)), key=order)


def _with_rate(content: Mapping[str, Any], arm: Arm, rate: float) -> Arm:
    changes = {**arm.changes, "learning_rate": rate}
    train = params.load(changed(content, "train", changes), "train", TrainConfig)
    return Arm(name=arm.name, train=train, steer=arm.steer, changes=changes)


@flow(name="ablate", flow_run_name="ablate", validate_parameters=False)
def ablate(
    root: Path, content: Mapping[str, Any], config: ArmsConfig, names: Sequence[str], jobs: int
) -> str:
    """Measure the arms `names` on every seed, `jobs` things at a time; returns the table in
    Markdown.
    """
    where = params.load(content, "tracking", runs.TrackingConfig)
    arms = [arm_of(content, config, name) for name in names]
    with runs.stage_run("arms", config, where, root) as run, _parent(run.run_id):
        chosen = {arm.name: arm for arm in tuned(root, content, arms, config, jobs)}
        results = measure(root, content, list(chosen.values()), config.seeds, "test", jobs)
        for result in results:
            _child(root, where, chosen[result.arm], result)
        table = report(root, content, config, results)
        for path in sorted((root / "results" / "arms").iterdir()):
            run.store.log_artifact(run.run_id, str(path))
        run.store.set_tag(run.run_id, "mlflow.note.content", table)
    return table


def report(
    root: Path, content: Mapping[str, Any], config: ArmsConfig, results: Sequence[Result]
) -> str:
    """Write `results/arms/`; returns the table."""
    by_arm: dict[str, list[Result]] = {}
    for result in results:
        by_arm.setdefault(result.arm, []).append(result)
    answers = {
        arm: [pd.read_parquet(r.responses) for r in of_arm] for arm, of_arm in by_arm.items()
    }
    resamples = content["evaluate"]["bootstrap"]
    against = {
        other: {
            a: hal_difference(answers[a], answers[other], resamples, content["seed"])
            for a in answers
            if a != other
        }
        for other in config.references
        if other in answers
    }
    long = pd.DataFrame([{"arm": r.arm, "seed": r.seed, **r.metrics} for r in results])
    table = markdown(summary(long, against))
    with whole_folder(root / "results" / "arms") as out:
        (out / "table.md").write_text(table, encoding="utf-8")
        long.to_csv(out / "table.csv", index=False)
        chart(long, out / "arms.png")
    return table


def _child(root: Path, where: runs.TrackingConfig, arm: Arm, result: Result) -> None:
    """An MLflow run for one arm and seed, so that arms can be compared there."""
    stage, config = ("train", arm.train) if arm.train else ("steer", arm.steer or Settings())
    with runs.stage_run(stage, config, where, root, f"{arm.name}, seed {result.seed}") as run:
        for name, value in sorted(result.metrics.items()):
            run.store.log_metric(run.run_id, f"test/{name}", value)


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
        prog="python -m flows.compare.ablate",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--arms", metavar="A,B", help="only these arms of the file (default: all)")
    parser.add_argument("--seeds", metavar="N,M", help="these seeds instead of those of the file")
    parser.add_argument(
        "--jobs",
        type=int,
        metavar="N",
        help="how many things at a time (default: one per GPU or CPU)",
    )
    parser.add_argument(
        "--file",
        type=Path,
        default=arms_file.FILE,
        help="the arms (default: flows/compare/arms.yaml)",
    )
    given = parser.parse_args(arguments)
    root = Path.cwd()
    try:
        content = params.read(root / "params.yaml")
        launch.configs(content)
        require(given.jobs is None or given.jobs > 0, "--jobs", "must be at least 1")
        config = arms_file.read(given.file)
        if given.seeds:
            seeds = tuple(_number(text) for text in given.seeds.split(","))
            config = config.model_copy(update={"seeds": seeds})
        content = changed(content, "train", {"workers": 0})  # one process trains an arm
        names = given.arms.split(",") if given.arms else list(config.named)
        for name in names:
            arm_of(content, config, name)
        with prefect_here(root):
            table = ablate(root, content, config, names, given.jobs or pool.default_jobs())
    except InputError as error:
        print(f"ablate: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(
            "ablate: stopped; what was measured is kept, the next run goes on from there",
            file=sys.stderr,
        )
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
