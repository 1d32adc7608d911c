"""Stage `answer`: the answers of the base and the tuned model to the test split, plain and steered.

Of the two stages after training this one loads models; `evaluate` judges what it wrote.
Both also describe the validation split plainly, on which the detectors of the early warning are
fitted. Where a key of `steer` is `auto`, its value is chosen on that split first, for each model.
All arms answer the questions of `answer.benchmarks` as well. Writes

    responses.parquet         every answer to a split's questions
    tokens.parquet            attention at every token of the descriptions
    traces.parquet            all of it for the longest ones
    models.json               which weights answered
    steering.csv              the rules that each model could be steered by, and their figures
    steering.json             the rule by which each model is steered
    asked.json                what else decides their answers
    debias_base.safetensors   debias masks of the grids of patches that have appeared, and
    debias_tuned.safetensors  those of the tuned model
    benchmarks.parquet        every answer to a benchmark's, with the verdict of a judge if there is
    benchmark_tokens.parquet  attention at every token of the free answers among them
    benchmarks.json           what was read of each benchmark, which lies outside DVC's graph

columns in `adapt/generation/bench.py`; in the tables of benchmarks the label stands as `benchmark`
where the others have `split`. An interrupted run goes on where it stopped, from the state folder.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from adapt.data.outside import Outside
from adapt.environment import state_dir
from adapt.generation.settings import Config
from adapt.progress import Log

if TYPE_CHECKING:
    from adapt.benchmarks.suite import Suite
    from adapt.data.schema import Example
    from adapt.generation.bench import Bench, Tables
    from adapt.generation.crew import Crew
    from adapt.generation.known import Known


def inputs(config: Config) -> tuple[str, ...]:
    """What it reads below `results/`, for a cluster."""
    return "data/splits", "base/model", "train/model"


def outside(config: Config) -> tuple[Outside, ...]:
    """What it reads elsewhere: of benchmarks their questions, the pictures asked about, verdicts.

    Raises InputError as `run` does where one of them cannot be read or scored.
    """
    from adapt.generation.outside import of_benchmarks

    return of_benchmarks(config)


def at_home(config: Config) -> str:
    """Why it cannot go to a cluster, "" where it can: a judge's key stays with its owner."""
    judged = ", ".join(one.called for one in config.benchmarks if one.judge is not None)
    return f"asks the judge of {judged} from this machine, which has its key" if judged else ""


def run(config: Config, results: Path, out: Path, log: Log) -> dict[str, float]:
    """Let both models answer; see the module docstring."""
    from adapt.cluster.fan import crew
    from adapt.cluster.local import is_sent
    from adapt.generation import benched
    from adapt.generation.known import Known

    # 1. What is asked is read before a model is: a missing picture is told at once.
    suites = benched.suites(config, is_rehearsed=is_sent())
    known = Known.of(results / "data" / "splits")
    # 2. Who answers: this process, or actors.
    with crew(config.actors, config.actor_cpus, config.device, "answer") as others:
        return _answered(config, results, out, suites, known, others)


def _answered(
    config: Config,
    results: Path,
    out: Path,
    suites: "Sequence[Suite]",
    known: "Known",
    crew: "Crew | None",
) -> dict[str, float]:
    from adapt.generation import asked, benched, chosen
    from adapt.generation.bench import Tables
    from adapt.generation.kept import forget

    splits, parts, models = results / "data" / "splits", [], dict[str, str]()
    extra, choices = list[Tables](), dict[str, chosen.Choice]()
    # 1. One model after the other.
    for arm, stage in (("base", "base"), ("tuned", "train")):
        bench = open_bench(config, results / stage / "model", splits, "test", crew)
        models |= {arm: bench.weights(), f"{arm}_prompt": bench.prompt()}
        parts.append(bench.ask(arm, None, traces=config.traces if arm == "base" else 0))
        choices[arm] = chosen.choose(bench, arm, config, known)
        parts.append(bench.ask(f"{arm}_steered", choices[arm].rule))
        parts += _validation(bench, arm, config, known)
        bench.debias.save(out / asked.debias_file(arm))
        asked.write(out, bench.answered_as())
        extra += benched.asked(bench, suites, arm, choices[arm].rule)
    # 2. The tables.
    tables = Tables.joined(parts)
    tables.write(out)
    chosen.write(out, choices)
    (out / "models.json").write_text(json.dumps(models, indent=2) + "\n")
    state = state_dir(splits.parents[2])
    benched.write(out, config, suites, extra, state / "verdicts")
    forget(state / "answers")
    on_test = tables.responses[tables.responses.split == "test"]
    lengths = on_test.groupby("arm", sort=False).tokens
    metrics = {f"{arm}/answers": float(count) for arm, count in lengths.count().items()}
    return metrics | {f"{arm}/tokens": float(mean) for arm, mean in lengths.mean().items()}


def open_bench(
    config: Config, model: Path, splits: Path, split: str, crew: "Crew | None" = None
) -> "Bench":
    """A model, of the workspace or from elsewhere, before the questions of a split.

    `crew` has it and answers; without one this process does, whatever `answer.actors` says.
    """
    from adapt.data.tables import read_split
    from adapt.generation.bench import Bench

    rows = _asked(config, read_split(splits / f"{split}.parquet"))
    # What is worked out once for a model lies in the state folder of the splits' workspace.
    return Bench(model, split, rows, config, state_dir(splits.parents[2]), crew=crew)


def _asked(config: Config, rows: "Sequence[Example]") -> "Sequence[Example]":
    """So many of the rows as `answer.questions` has."""
    from adapt.data.lots import drawn

    limit = config.questions
    return drawn(rows, limit, config.seed) if 0 < limit < len(rows) else rows


def _validation(bench: "Bench", arm: str, config: Config, known: "Known") -> "list[Tables]":
    """A model's descriptions of what is known in the validation split; none of nothing."""
    rows = _asked(config, known.rows)
    return [bench.turned_to("validation", rows).ask(arm, None)] if rows else []


if __name__ == "__main__":
    from adapt.launch import launch

    launch("answer")
