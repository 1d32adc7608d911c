"""Compare the arms of flows/compare/arms.yaml: which part does the work, and at what cost.

    python -m flows.compare                          # every arm on every seed of the file
    python -m flows.compare --arms base,steering     # some of them
    python -m flows.compare --split validation       # to choose between arms
    python -m flows.compare --help

Every arm that trains may choose its learning rate on the validation split of the first seed, from
the same list; where the file lists one rate, nothing is chosen. The test split is then scored once
per arm and seed; with `--split validation` that split is, and the test split is not looked at. Ray
computes several things at a time. Models and scores are kept by content
(`flows/compare/cells.py`), so a comparison that was stopped goes on where it was, and one more arm
costs only itself. Writes `results/arms/` (of the validation split `results/arms-validation/`):
table.md, table.csv (one row per arm and seed), differences.csv (paired, over the pictures of all
seeds) and arms.png; in MLflow, one run with a child per arm and seed.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

from adapt import command, environment, launch, params
from adapt.params import require
from flows.compare import arms, pool
from flows.compare.ablate import ablate
from flows.compare.arms import Comparison, Split, changed
from flows.prefect_api import prefect_here


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code: 2 for a user's mistake."""
    options = _parser().parse_args(arguments)
    stopped = "stopped; what was scored is kept, the next run goes on from there"
    return command.ended("compare", lambda: _compared(Path.cwd(), options), stopped=stopped)


def _compared(root: Path, options: argparse.Namespace) -> None:
    comparison = _comparison(root, options)
    names = options.arms.split(",") if options.arms else list(comparison.arms.named)
    for name in names:
        comparison.arm(name)  # a mistake in the last arm is told before the first is computed
    with prefect_here(root, "compare"):
        table = ablate(comparison, names)
    folder = comparison.folder.relative_to(root)
    files = "table.md, table.csv, differences.csv, arms.png"
    print(f"\n{table}\n{folder}: {files}; in MLflow: make ui")


def _comparison(root: Path, options: argparse.Namespace) -> Comparison:
    content = params.read(root / "params.yaml")
    launch.configs(content)
    require(options.jobs is None or options.jobs > 0, "--jobs", "must be at least 1")
    file = arms.read(options.file)
    if options.seeds:
        file = file.model_copy(update={"seeds": arms.seeds_of(options.seeds)})
    content = changed(
        content, "train", {"workers": 0, "shard": "none"}
    )  # one process trains an arm
    jobs = options.jobs or pool.default_jobs()
    return Comparison(root=root, content=content, arms=file, jobs=jobs, split=options.split)


def _parser() -> argparse.ArgumentParser:
    parser = environment.parser("flows.compare", __doc__)
    add = parser.add_argument
    add("--arms", metavar="A,B", help="only these arms of the file (default: all)")
    add("--seeds", metavar="N,M", help="these seeds instead of those of the file")
    help_jobs = "how many things at a time (default: one per GPU or CPU)"
    add("--jobs", type=int, metavar="N", help=help_jobs)
    help_split = "what is scored (default: test); validation is for choosing between arms"
    add("--split", choices=get_args(Split), default="test", help=help_split)
    add("--file", type=Path, default=arms.FILE, help="the arms (default: flows/compare/arms.yaml)")
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
