"""What surrounds a stage when it runs as a command: configuration, tracking, and an all-or-nothing
result folder.

`python -m adapt.stages.train` reaches `launch("train")`, which
1. reads `params.yaml` strictly, the other stages' sections included, so that a typo stops a run
   before it computes,
2. opens an MLflow run and hands the stage a function that logs one step,
3. lets the stage write into a fresh folder beside `results/`, and swaps it in only when the stage
   has succeeded,
4. turns a user's mistake (`InputError`) into one line on stderr and exit code 2.

A stage itself is `Config` + `run(config, results, out, log) -> metrics` and knows nothing of this
file.
"""

import argparse
import importlib
import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from adapt import environment, params

STAGES = ("data", "base", "pairs", "train", "evaluate")
RESULTS = Path("results")

Log = Callable[[int, Mapping[str, float]], None]
"""`log(step, metrics)`: one point of each named curve."""


def configs(content: Mapping[str, Any]) -> dict[str, Any]:
    """Every stage's checked `Config`, and a check that no top-level section is unknown."""
    from adapt.evaluation.gate import Rules
    from adapt.tracking.runs import TrackingConfig
    from flows.compare.arms import ArmsConfig, arm_of

    known = {*STAGES, "seed", "max_new_tokens", "anchor", "steer", "arms", "gate", "tracking"}
    for key in content:
        params.require(
            key in known,
            f"params.yaml: unknown section {key}",
            f"known: {', '.join(sorted(known))}",
        )
    loaded = {stage: params.load(content, stage, stage_module(stage).Config) for stage in STAGES}
    loaded["arms"] = params.load(content, "arms", ArmsConfig)
    for name in loaded["arms"].named:
        arm_of(content, name)
    loaded["gate"] = params.load(content, "gate", Rules)
    loaded["tracking"] = params.load(content, "tracking", TrackingConfig)
    return loaded


def stage_module(stage: str) -> ModuleType:
    """`adapt.stages.<stage>`, imported by name so that pickled configs never belong to `__main__`."""
    return importlib.import_module(f"adapt.stages.{stage}")


@contextmanager
def published(target: Path) -> Iterator[Path]:
    """A fresh folder that replaces `target` when the block ends well; on an error `target` stays as
    it was.
    """
    partial = target.parent / f".{target.name}.partial-{os.getpid()}"
    previous = target.parent / f".{target.name}.previous-{os.getpid()}"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        yield partial
        if target.exists():
            target.rename(previous)
        partial.rename(target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
        shutil.rmtree(previous, ignore_errors=True)


def execute(stage: str, root: Path) -> dict[str, float]:
    """Run one stage in the workspace `root`; returns its metrics, also written to
    `results/<stage>/metrics.json`.
    """
    from adapt.tracking import runs

    content = params.read(root / "params.yaml")
    loaded = configs(content)
    results = root / RESULTS
    with runs.stage_run(stage, loaded[stage], loaded["tracking"], root) as run:
        with published(results / stage) as out:
            metrics = stage_module(stage).run(loaded[stage], results, out, run.log_step)
            (out / "metrics.json").write_text(json.dumps(metrics, indent=2, sort_keys=True) + "\n")
        run.log_results(results / stage)
    return metrics


def launch(stage: str) -> None:
    """The command line of a stage: no options of its own, `--help` tells what it reads and writes."""
    root = Path.cwd()
    environment.prepare(root)
    parser = argparse.ArgumentParser(
        prog=f"python -m adapt.stages.{stage}",
        description=stage_module(stage).__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog=f"Options are in params.yaml, section '{stage}'. `dvc repro {stage}` runs it after what it needs.",
    )
    parser.parse_args()
    try:
        metrics = execute(stage, root)
    except params.InputError as error:
        print(f"adapt {stage}: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    print(
        f"adapt {stage}: "
        + ", ".join(f"{key} {value:.4g}" for key, value in sorted(metrics.items())[:12])
    )
