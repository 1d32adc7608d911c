"""Train in rounds, each on pairs sampled from the model of the round before.

    python -m flows.rounds                    # up to three rounds, of the seed in params.yaml
    python -m flows.rounds --rounds 4         # one more; those before it are there already
    python -m flows.rounds --seeds 7,8,9      # in three worlds
    python -m flows.rounds --help

Preference pairs that were sampled from a model before training are soon not its own any more. Here
`pairs -> train` runs several times: each round samples from the model of the round before, on
pictures that no round has used (pairs.images of them, behind pairs.skip), starts from that model
and has it as its reference. That is iterated DPO; RLAIF-V does four rounds (arXiv 2405.17220).

After each round its model is scored on the validation split, plainly and steered. A round that is
not better than all before it is the last: better is a lower Hal, at no more than a point of Cover
and of yes/no F1 below the base. So is the round after which pictures run out: for more rounds lower
pairs.images. The test split is not looked at.

Everything is kept by content (flows/compare/cells.py): rounds that were stopped go on where they
were. Writes results/rounds/: table.md, table.csv, rounds.png and best.json; in MLflow, one run with
a child for each round, and Hal, Cover and the others as curves over rounds. At the end it says how
to have the best round repeated, judged on the test split and promoted by `make run`.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from prefect import flow, task
from prefect.cache_policies import NO_CACHE
from prefect.logging import get_run_logger

from adapt import command, environment, launch, params
from adapt.names import one_line
from adapt.params import require
from adapt.preference.settings import Config as TrainConfig
from adapt.tracking import runs
from adapt.tracking.store import Store, TrackingConfig
from flows import chain, curve
from flows.chain import Round, RoundsConfig
from flows.compare import arms, pool, scoring
from flows.compare.arms import Comparison, changed
from flows.compare.cells import Cell
from flows.prefect_api import prefect_here

CURVES = ("hal", "chair_i", "cover", "pope_f1", "colour_accuracy", "length")


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code: 2 for a user's mistake."""
    options = _parser().parse_args(arguments)
    stopped = "stopped; what was computed is kept, the next run goes on from there"
    return command.ended("rounds", lambda: _played(Path.cwd(), options), stopped=stopped)


def _played(root: Path, options: argparse.Namespace) -> None:
    content = params.read(root / "params.yaml")
    launch.configs(content)
    require(options.rounds > 0, "--rounds", "must be at least 1")
    require(options.jobs is None or options.jobs > 0, "--jobs", "must be at least 1")
    seeds = arms.seeds_of(options.seeds) if options.seeds else (content["seed"],)
    asked = RoundsConfig(rounds=options.rounds, seeds=tuple(dict.fromkeys(seeds)))
    jobs = options.jobs or pool.default_jobs()
    # One process trains, as for the arms of a comparison.
    alone = changed(content, "train", {"workers": 0, "shard": "none"})
    of = chain.comparison(root, alone, asked, jobs)
    with prefect_here(root, "rounds"):
        table = rounds(of, asked)
    shipped = json.loads((root / curve.FOLDER / "best.json").read_text(encoding="utf-8"))
    told = "\n\n".join(curve.advice(content, one) for one in shipped)
    files = "table.md, table.csv, rounds.png, best.json; in MLflow: make ui"
    print(f"\n{table}\n{curve.FOLDER}: {files}\n\n{told}")


@flow(name="rounds", flow_run_name="rounds", validate_parameters=False)
def rounds(of: Comparison, asked: RoundsConfig) -> str:
    """Play the rounds and record them; returns the table in Markdown."""
    store = Store(of.root, params.load(of.content, "tracking", TrackingConfig))
    log = get_run_logger()

    def compute(label: str, wanted: Sequence[Cell]) -> None:
        _computed.with_options(task_run_name=label)(of, wanted)

    with runs.stage_run(store, "rounds", asked, "rounds") as run:
        chains: dict[int, list[Round]] = {seed: [] for seed in asked.seeds}
        for now in chain.play(of, asked.rounds, compute, lambda line: log.info(one_line(line))):
            for one in now:
                chains[one.seed].append(one)
                _child(store, run.run_id, one)
                run.log_step(one.number, points(one))
            # Rounds that are there are seen while the next is trained.
            text = curve.write(of.root, of.content, chains)
        run.log_files("rounds", {p.name: p for p in sorted((of.root / curve.FOLDER).iterdir())})
        run.tag({"mlflow.note.content": text})
    return text


def points(one: Round) -> dict[str, float]:
    """What is drawn over rounds, by the name of its curve."""
    ways = zip(("", "steered_"), one.scores, strict=False)
    return {
        f"seed_{one.seed}/{way}{key}": scores.metrics[key]
        for way, scores in ways
        for key in CURVES
        if key in scores.metrics
    }


@task(name="compute", cache_policy=NO_CACHE)
def _computed(of: Comparison, wanted: Sequence[Cell]) -> None:
    scoring.compute(of, wanted, get_run_logger().info)


def _child(store: Store, parent: str, one: Round) -> None:
    """An MLflow run for one round of one seed, so that rounds can be compared there."""
    config = params.load(one.plain.arm.content, "train", TrainConfig)
    stage, settings = ("train", config) if one.number else ("base", params.Settings())
    name = f"{one.plain.arm.name}, seed {one.seed}"
    with runs.stage_run(store, stage, settings, name, parent) as run:
        run.tag({"adapt.round": str(one.number)})
        for way, scores in zip(("validation", "validation_steered"), one.scores, strict=False):
            run.log_metrics({f"{way}/{key}": value for key, value in scores.metrics.items()})
        if one.pairs:
            run.log_metrics({f"pairs/{key}": v for key, v in one.pairs.metrics.items()})


def _parser() -> argparse.ArgumentParser:
    parser = environment.parser("flows.rounds", __doc__)
    add = parser.add_argument
    add("--rounds", type=int, default=3, metavar="N", help="at most so many (default: 3)")
    add("--seeds", metavar="N,M", help="these seeds (default: that of params.yaml)")
    help_jobs = "how many things at a time (default: one per GPU or CPU)"
    add("--jobs", type=int, metavar="N", help=help_jobs)
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
