"""Score arms by the stages' own code: train if one trains, answer, judge; once for each content."""

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any

import pandas as pd
from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.logging import get_run_logger

from adapt import params
from adapt.evaluation.judge import judge_split
from adapt.generation import chosen
from adapt.generation.settings import Steering
from adapt.names import one_line
from adapt.params import Content
from adapt.stages import answer
from flows.compare import cells, pool
from flows.compare.arms import Arm, Comparison
from flows.compare.cells import Cell

STEERED = ("alpha", "tau")  # numbers of a rule that stand beside an arm's scores


@dataclass(frozen=True, kw_only=True)
class ArmScores:
    """One arm on one seed and split: metrics, and the judged answers they come from.

    `world` tells what was asked: arms of different worlds are not compared.
    """

    arm: str
    seed: int
    world: str
    metrics: dict[str, float]
    judged: Path


@dataclass(frozen=True)
class Scoring:
    """What computes the scores of one arm on one seed and split: data, model, and the judging."""

    arm: Arm
    seed: int
    data: Cell
    model: Cell
    answers: Cell
    cell: Cell

    @property
    def scores(self) -> ArmScores:
        """What came out, once it is computed.

        With the seconds of a training, and the numbers by which the model was steered.
        """
        cost = {"seconds": self.model.seconds} if self.arm.train else {}
        steered = {name: self.answers.metrics[name] for name in STEERED if self.arm.steer}
        return ArmScores(
            arm=self.arm.name,
            seed=self.seed,
            world=self.data.folder.name,
            metrics=self.cell.metrics | cost | steered,
            judged=self.cell.folder / "judged.parquet",
        )


@task(name="score", task_run_name="score-{split}", cache_policy=NO_CACHE)
def score(
    comparison: Comparison, arms: Sequence[Arm], seeds: Sequence[int], split: str
) -> list[ArmScores]:
    """Every arm on every seed, seed by seed; logs progress, and how long the rest takes."""
    wanted = [scoring(comparison, arm, seed, split) for seed in seeds for arm in arms]
    compute(comparison, [one.cell for one in wanted], get_run_logger().info)
    return [one.scores for one in wanted]


def compute(comparison: Comparison, wanted: Sequence[Cell], tell: Callable[[str], object]) -> None:
    """Compute what is not there yet; tells what, then of each cell, and how long the rest takes."""
    missing = pool.missing_of(wanted)
    if missing:
        kinds = Counter(one.kind for one in missing.values())
        listed = ", ".join(f"{kind} ({count})" for kind, count in kinds.items())
        tell(f"to be computed, {comparison.jobs} at a time: {listed}")
    started, done = time.monotonic(), list[Cell]()
    for cell, left in pool.run(wanted, comparison.jobs, comparison.root):
        done.append(cell)
        rest = rest_of(done, left, time.monotonic() - started)
        tell(one_line(f"{cell.title}: {cell.seconds:.0f} s; {rest}"))


def rest_of(done: Sequence[Cell], left: Sequence[Cell], elapsed: float) -> str:
    """What is still to come, and how long that takes, in words, `elapsed` seconds after the start.

    Kinds of cells take seconds or minutes, so each counts as those of its kind took on average; of
    a kind that no cell has been of yet nothing is known, and the rest takes at least the others.
    No time is named where that is less than half a minute.
    """
    spent: dict[str, list[float]] = {}
    for cell in done:
        spent.setdefault(cell.kind, []).append(cell.seconds)
    known = [fmean(spent[cell.kind]) for cell in left if cell.kind in spent]
    # Several run at a time, and beside them goes what starts them.
    pace = elapsed / max(sum(map(sum, spent.values())), 1e-9)
    minutes = round(sum(known) * pace / 60)
    if len(known) < len(left):
        return f"{len(left)} to come" + (f", at least {minutes} min" if minutes else "")
    return f"{len(left)} to come, about {minutes} min"


def scoring(
    comparison: Comparison, arm: Arm, seed: int, split: str, start: Cell | None = None
) -> Scoring:
    """How `arm` comes by its scores; computes nothing.

    `start` is a training whose model is the base that the arm begins from (`cells.stage`).
    """
    root, content = comparison.root, {**arm.content, "seed": seed}
    model = cells.stage(root, content, "train" if arm.train else "base", start)
    data = cells.stage(root, content, "data")
    splits, graph, home = data.folder / "splits", cells.graph(root), cells.home(root)
    ending = f"{arm.name} on {split}, seed {seed}"
    # 1. Answers depend on the code of `answer`, the data, the model (whichever stage made it, it
    #    stands for every stage of the graph but data), how the arm is steered, and the split.
    entry = graph["answer"] | {"params": ["anchor", "answer", "max_new_tokens"]}
    inputs = {stage: data if stage == "data" else model for stage in cells.needs(entry)}
    steer = _steering(arm.steer)
    code = cells.key(root, content, entry, inputs)
    name = cells.digest(code, model.folder.name, steer, split)
    make = partial(_answer, content, arm, split, model.folder / "model", splits)
    answers = Cell(f"answering as {ending}", home / f"answers-{name}", make, (data, model))
    # 2. Scores depend on these and on the code of `evaluate`: a new metric costs no answer.
    entry = graph["evaluate"] | {"params": ["anchor"]}
    name = cells.key(root, content, entry, {"answer": answers, "data": data})
    make = partial(_judge, content["anchor"]["anchor_tokens"], split, answers.folder, splits)
    scores = Cell(f"scoring {ending}", home / f"scores-{name}", make, (data, answers))
    return Scoring(arm, seed, data, model, answers, scores)


def _answer(
    content: Content, arm: Arm, split: str, model: Path, splits: Path, out: Path
) -> dict[str, float]:
    config = params.load(content, "answer", answer.Config)
    bench, rule, metrics = answer.open_bench(config, model, splits, split), None, {}
    if arm.steer:
        # On validation where a key is auto, by the same code as stage `answer`.
        one = chosen.choose(bench, arm.name, config, chosen.Known.of(splits))
        chosen.write(out, {arm.name: one})
        rule, metrics = one.rule, {name: getattr(one.rule, name) for name in STEERED}
    tables = bench.ask(arm.name, rule)
    tables.write(out)
    return {"answers": float(len(tables.responses)), **metrics}


def _steering(steering: Steering | None) -> dict[str, Any] | None:
    """What answers depend on of section `steer`: its grid only where something is chosen."""
    if steering is None:
        return None
    return (steering if steering.auto else steering.rules[0]).model_dump()


def _judge(
    anchor_tokens: int, split: str, answers: Path, splits: Path, out: Path
) -> dict[str, float]:
    responses, tokens = (pd.read_parquet(answers / f"{n}.parquet") for n in ("responses", "tokens"))
    judged = judge_split(responses, tokens, splits, split, anchor_tokens)
    judged.responses.to_parquet(out / "judged.parquet")
    return judged.metrics
