"""Stage `answer`: the answers of the base and the tuned model to the test split, plain and steered.

Of the two stages after training this one loads models; `evaluate` judges what it wrote.
The base model also describes the validation split, on which the detectors of the early warning are
fitted. Writes `responses.parquet` (every answer), `tokens.parquet` (attention at every token of the
descriptions), `traces.parquet` (all of it for the longest ones) and `models.json` (which weights
answered); columns in `adapt/generation/bench.py`.
"""

import json
from pathlib import Path
from typing import TYPE_CHECKING

from adapt.environment import state_dir
from adapt.generation.settings import Config
from adapt.progress import Log

if TYPE_CHECKING:
    from adapt.generation.bench import Bench, Tables


def run(config: Config, results: Path, out: Path, log: Log) -> dict[str, float]:
    """Let both models answer; see the module docstring."""
    from adapt.generation.bench import Tables

    splits, parts, models = results / "data" / "splits", [], dict[str, str]()
    for arm, stage in (("base", "base"), ("tuned", "train")):
        folder = results / stage / "model"
        bench = open_bench(config, folder, splits, "test")
        models |= {arm: bench.weights(), f"{arm}_prompt": bench.prompt()}
        parts.append(bench.ask(arm, None, traces=config.traces if arm == "base" else 0))
        parts.append(bench.ask(f"{arm}_steered", config.steer))
        if arm == "base":
            parts += _validation(bench, splits)
    tables = Tables.joined(parts)
    tables.write(out)
    (out / "models.json").write_text(json.dumps(models, indent=2) + "\n")
    on_test = tables.responses[tables.responses.split == "test"]
    lengths = on_test.groupby("arm", sort=False).tokens
    metrics = {f"{arm}/answers": float(count) for arm, count in lengths.count().items()}
    return metrics | {f"{arm}/tokens": float(mean) for arm, mean in lengths.mean().items()}


def open_bench(config: Config, model: Path, splits: Path, split: str) -> "Bench":
    """A model, of the workspace or from elsewhere, before the questions of a split."""
    from adapt.data.tables import read_split
    from adapt.generation.bench import Bench

    # What is worked out once for a model lies in the state folder of the splits' workspace.
    kept = state_dir(splits.parents[2]) / "debias"
    return Bench(model, split, read_split(splits / f"{split}.parquet"), config, kept)


def _validation(base: "Bench", splits: Path) -> "list[Tables]":
    """The base model's descriptions of the validation split; none where it has no such question."""
    from adapt.data.tables import read_split

    rows = read_split(splits / "validation.parquet")
    describe = [row for row in rows if row.kind == "describe"]
    return [base.turned_to("validation", describe).ask("base", None)] if describe else []


if __name__ == "__main__":
    from adapt.launch import launch

    launch("answer")
