"""A model that answers benchmarks: plain and steered, with each benchmark's prompts and limits."""

import json
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from adapt.benchmarks import registry
from adapt.benchmarks.settings import Benchmark
from adapt.benchmarks.suite import Suite
from adapt.generation import verdicts as judging
from adapt.generation.bench import Bench, Tables
from adapt.generation.settings import Config, SteerConfig
from adapt.metrics.split import FREE
from adapt.names import one_line
from adapt.params import require

COLUMNS = "arm steered benchmark id image_id kind question reference response tokens heats grids"
"""Of a table of benchmarks' answers, besides `verdict`."""


def suites(config: Config, is_rehearsed: bool = False) -> list[Suite]:
    """The questions of all configured benchmarks; says what is not as published.

    Raises InputError also where answers could not be scored: that is known before they are made.
    `is_rehearsed`: who has sent this stage elsewhere knows it, and what scores them has not come.
    """
    read = [announced(one) for one in config.benchmarks]
    if not is_rehearsed:
        rehearse(config, read)
    return read


def rehearse(config: Config, suites: Sequence[Suite]) -> None:
    """InputError where answers to the configured benchmarks could not be scored."""
    for benchmark, suite in zip(config.benchmarks, suites, strict=True):
        judged = benchmark.verdicts is not None or benchmark.judge is not None
        advice = "add judge, an endpoint, or verdicts, a file"
        problem = f"nobody judges the answers; {advice}"
        require(benchmark.name != "mmhal" or judged, benchmark.called, problem)
        registry.rehearse(benchmark, suite)


def announced(benchmark: Benchmark) -> Suite:
    """One benchmark's questions; its notes are printed."""
    suite = registry.read(benchmark)
    print(one_line(f"{suite.label}: {len(suite.questions)} questions of {benchmark.path}"))
    for note in suite.notes:
        print(one_line(f"{suite.label}: {note}"))
    return suite


def asked(
    bench: Bench, suites: Sequence[Suite], arm: str, steer: SteerConfig | None
) -> list[Tables]:
    """The answers of one model to every suite, plain as `arm` and steered as `<arm>_steered`."""
    tables = []
    for suite in suites:
        before = bench.turned_to(suite.label, suite.questions, suite.max_new_tokens)
        tables += [before.ask(arm, None), before.ask(f"{arm}_steered", steer)]
    return tables


def write(
    out: Path, config: Config, suites: Sequence[Suite], tables: Sequence[Tables], verdicts: Path
) -> None:
    """The three files of benchmarks, as stage `answer` names them; also where there are none.

    `verdicts` is the folder where those of an endpoint are kept.
    """
    columns = [*COLUMNS.split(), "verdict"]
    parts = [_labelled(of.responses) for of in tables]
    for suite, benchmark in zip(suites, config.benchmarks, strict=True):
        for part in (part for part in parts if part.benchmark.iloc[0] == suite.label):
            answers = dict(zip(part.id, part.response, strict=True))
            arm = part.arm.iloc[0]
            said = judging.verdicts(benchmark, suite, answers, arm, verdicts)
            part["verdict"] = part.id.map(said) if said else None
    responses = pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=columns)
    responses[columns].to_parquet(out / "benchmarks.parquet", index=False)
    signals = [_labelled(of.tokens) for of in tables]
    tokens = pd.concat(signals, ignore_index=True) if signals else pd.DataFrame()
    tokens.to_parquet(out / "benchmark_tokens.parquet", index=False)
    pairs = zip(suites, config.benchmarks, strict=True)
    read = {suite.label: _provenance(suite, benchmark, parts) for suite, benchmark in pairs}
    (out / "benchmarks.json").write_text(json.dumps(read, indent=2) + "\n", encoding="utf-8")


def _labelled(table: pd.DataFrame) -> pd.DataFrame:
    """`split` as `benchmark`; maps of a word's answer are not kept, for there are many of them."""
    table = table.rename(columns={"split": "benchmark"})
    if "heats" in table:
        free = table.kind.isin(FREE)
        for column in ("heats", "grids"):
            table[column] = table[column].where(free, None)
    return table


def _provenance(
    suite: Suite, benchmark: Benchmark, parts: Sequence[pd.DataFrame]
) -> dict[str, object]:
    """Its settings, and the files that questions and verdicts were read from, by content."""
    settings = benchmark.model_dump(mode="json", exclude_unset=True)
    arms = [part.arm.iloc[0] for part in parts if part.benchmark.iloc[0] == suite.label]
    given = {} if benchmark.verdicts is None else judging.files(benchmark, arms)
    read = {**suite.fingerprint, "verdicts": given}
    return {"settings": settings, **read, "notes": list(suite.notes)}
