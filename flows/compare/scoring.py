"""Score arms by the stages' own code: train if one trains, answer, judge; once for each content."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pandas as pd
from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.logging import get_run_logger

from adapt import params
from adapt.evaluation.judge import judge_split
from adapt.names import one_line
from adapt.params import Content
from adapt.stages import answer
from flows.compare import cells, pool
from flows.compare.arms import Arm, Comparison, changed
from flows.compare.cells import Cell


@dataclass(frozen=True, kw_only=True)
class ArmScores:
    """One arm on one seed and split: metrics, and the judged answers they come from."""

    arm: str
    seed: int
    metrics: dict[str, float]
    judged: Path


@dataclass(frozen=True)
class Scoring:
    """What computes the scores of one arm on one seed and split: its model, and the judging."""

    arm: Arm
    seed: int
    model: Cell
    cell: Cell

    @property
    def scores(self) -> ArmScores:
        """What came out, once it is computed; a trained arm also tells its training's seconds."""
        cost = {"seconds": self.model.seconds} if self.arm.train else {}
        metrics, judged = self.cell.metrics | cost, self.cell.folder / "judged.parquet"
        return ArmScores(arm=self.arm.name, seed=self.seed, metrics=metrics, judged=judged)


@task(name="score", task_run_name="score-{split}", cache_policy=NO_CACHE)
def score(
    comparison: Comparison, arms: Sequence[Arm], seeds: Sequence[int], split: str
) -> list[ArmScores]:
    """Every arm on every seed, seed by seed; logs progress, and how long the rest takes."""
    wanted = [scoring(comparison, arm, seed, split) for seed in seeds for arm in arms]
    log, started = get_run_logger(), time.monotonic()
    computed = pool.run([one.cell for one in wanted], comparison.jobs, comparison.root)
    for count, (cell, left) in enumerate(computed, start=1):
        minutes = (time.monotonic() - started) / count * left / 60
        log.info(
            one_line(f"{cell.title}: {cell.seconds:.0f} s; {left} to come, about {minutes:.0f} min")
        )
    return [one.scores for one in wanted]


def scoring(comparison: Comparison, arm: Arm, seed: int, split: str) -> Scoring:
    """How `arm` comes by its scores; computes nothing."""
    root, content = comparison.root, {**comparison.content, "seed": seed}
    if arm.train:
        content = changed(content, "train", arm.changes)
    model = cells.stage(root, content, "train" if arm.train else "base")
    data = cells.stage(root, content, "data")
    splits, graph, home = data.folder / "splits", cells.graph(root), cells.home(root)
    ending = f"{arm.name} on {split}, seed {seed}"
    # 1. Answers depend on the code of `answer`, the data, the model (whichever stage made it, it
    #    stands for every stage of the graph but data), how the arm is steered, and the split.
    entry = graph["answer"] | {"params": ["anchor", "answer", "max_new_tokens"]}
    inputs = {stage: data if stage == "data" else model for stage in cells.needs(entry)}
    steer = None if arm.steer is None else arm.steer.model_dump()
    code = cells.key(root, content, entry, inputs)
    name = cells.digest(code, model.folder.name, steer, split)
    make = partial(_answer, content, arm, split, model.folder / "model", splits)
    answers = Cell(f"answering as {ending}", home / f"answers-{name}", make, (data, model))
    # 2. Scores depend on these and on the code of `evaluate`: a new metric costs no answer.
    entry = graph["evaluate"] | {"params": ["anchor"]}
    name = cells.key(root, content, entry, {"answer": answers, "data": data})
    make = partial(_judge, content["anchor"]["anchor_tokens"], split, answers.folder, splits)
    scores = Cell(f"scoring {ending}", home / f"scores-{name}", make, (data, answers))
    return Scoring(arm, seed, model, scores)


def _answer(
    content: Content, arm: Arm, split: str, model: Path, splits: Path, out: Path
) -> dict[str, float]:
    config = params.load(content, "answer", answer.Config)
    tables = answer.open_bench(config, model, splits, split).ask(arm.name, arm.steer)
    tables.write(out)
    return {"answers": float(len(tables.responses))}


def _judge(
    anchor_tokens: int, split: str, answers: Path, splits: Path, out: Path
) -> dict[str, float]:
    responses, tokens = (pd.read_parquet(answers / f"{n}.parquet") for n in ("responses", "tokens"))
    judged = judge_split(responses, tokens, splits, split, anchor_tokens)
    judged.responses.to_parquet(out / "judged.parquet")
    return judged.metrics
