"""Let any model answer a benchmark: questions and pictures as published, answers in its form.

    python -m adapt.generation MODEL --benchmark NAME=PATH --out FILE [--steer [ALPHA]] [--limit N]

No pipeline is needed. What is written is what `adapt.score` and the benchmark's own program read.
Torch and transformers are imported where they are used, so that `--help` is there at once.
"""

import argparse
import math
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import adapt
from adapt import command, environment, params
from adapt.benchmarks.settings import Benchmark, parsed, require_distinct
from adapt.data.disk import told
from adapt.environment import Parser
from adapt.generation.settings import Config, SteerConfig
from adapt.names import one_line
from adapt.params import InputError, require

if TYPE_CHECKING:
    from adapt.benchmarks.suite import Suite
    from adapt.generation.bench import Bench

PARAMS = Path("params.yaml")
CHOSEN = True  # --steer without a strength: as params.yaml says
HELP = """\
MODEL is a folder as `save_pretrained` writes it, a LoRA adapter's, or a hub id (owner/name).

  AMBER's folder as it comes; the pictures are looked for in AMBER/image:
    python -m adapt.generation llava-hf/llava-1.5-7b-hf --benchmark amber=AMBER --out base.json
    python -m adapt.score amber --responses base.json --truth AMBER/data
  the descriptions alone, steered as a retraining has chosen for its model (section steer of
  params.yaml); --steer 1.2 steers any model with that strength:
    python -m adapt.generation results/train/model --benchmark amber=AMBER,part=generative \\
        --steer --out adapt.json
  two files of POPE, called by their labels, in one run:
    python -m adapt.generation MODEL --out "{label}.jsonl" \\
        --benchmark popular:pope=coco_pope_popular.json,images=val2014 \\
        --benchmark random:pope=coco_pope_random.json,images=val2014
  500 drawn pictures of COCO, as CHAIR's papers describe them:
    python -m adapt.generation MODEL --benchmark chair=coco,limit=500 --out captions.jsonl
  a split of your own, and a benchmark as params.yaml has it under its label:
    python -m adapt.generation MODEL --benchmark own=results/data/splits --out own.jsonl
    python -m adapt.generation MODEL --benchmark my-amber --out answers.json

Benchmarks: amber, pope, chair, objhal, mmhal, hallusion, own. What each reads, and its keys:
adapt/benchmarks/<name>.py. Keys of all: images (folder of the pictures), limit, seed (of what
limit draws), partial=true (leave out questions whose picture is missing), suffix (after a short
question), max_new_tokens. A path with a comma belongs into params.yaml.

Answers are greedy. They are kept in FILE.kept/ while they are made: the same command goes on where
it was stopped; the folder goes when FILE is there.

Exit codes: 0 done, 2 a mistake in the arguments or files, 130 stopped.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns the exit code."""

    def work() -> None:
        options = _parser().parse_args(argv)
        with environment.terminable():
            _answer(options)

    stopped = "stopped; the same command goes on from here"
    return command.ended("adapt.generation", work, stopped=stopped)


def _parser() -> argparse.ArgumentParser:
    about = "Let any vision-language model answer a published benchmark."
    parser = Parser(prog="python -m adapt.generation", description=about, epilog=HELP)
    add = parser.add_argument
    add("model", metavar="MODEL", help="a folder or a hub id")
    which = "[LABEL:]NAME=PATH[,KEY=VALUE...], or a label of params.yaml; may be repeated"
    add("--benchmark", action="append", required=True, metavar="WHICH", help=which)
    out = "where the answers go; {label} in it where there are several benchmarks"
    add("--out", required=True, metavar="FILE", help=out)
    steer = "attention-supervised inference, section steer; ALPHA: with this strength"
    add("--steer", nargs="?", const=CHOSEN, type=_strength, metavar="ALPHA", help=steer)
    add("--limit", type=int, metavar="N", help="ask N drawn questions of each benchmark")
    file = "parameters (default: params.yaml here, else the project's own)"
    add("--params", type=Path, metavar="FILE", help=file)
    add("--batch", type=int, metavar="N", help="questions at once (default: answer.batch)")
    return parser


def _strength(text: str) -> float:
    """What `--steer` may name: a strength.

    >>> _strength("1.2")
    1.2
    """
    try:
        alpha = float(text)
    except ValueError:
        alpha = math.nan
    if not 0 <= alpha < math.inf:
        raise argparse.ArgumentTypeError(f"expected a strength such as 1.2, got {text}")
    return alpha


def _answer(options: argparse.Namespace) -> None:
    from adapt.generation import benched, chosen

    # 1. Everything that can be wrong, before a model is loaded.
    config = _config(options)
    benchmarks = [_benchmark(text, config, options.limit) for text in options.benchmark]
    try:
        require_distinct(tuple(benchmarks))
    except ValueError as error:
        raise InputError(f"--benchmark: {error}, as in other:{benchmarks[0].name}=...") from None
    files = [_file(options.out, one, len(benchmarks)) for one in benchmarks]
    suites = [benched.announced(one) for one in benchmarks]
    answers = _params(options).parent / "results" / "answer"
    is_steered = options.steer is not None
    if is_steered:
        chosen.require_choice(config.steer, answers)
    # 2. The answers.
    state = Path(f"{options.out}.kept")
    with told(state):  # a place where nothing can be written
        state.mkdir(parents=True, exist_ok=True)
    bench: Bench | None = None
    for benchmark, suite, file in zip(benchmarks, suites, files, strict=True):
        bench = _bench(options.model, suite, config, state, bench)
        rule = chosen.rule_of(bench.weights(), config.steer, answers) if is_steered else None
        _write(bench, benchmark, suite, file, rule, state)
    shutil.rmtree(state, ignore_errors=True)


def _bench(
    model: str, suite: "Suite", config: Config, state: Path, before: "Bench | None"
) -> "Bench":
    """The model before the questions; it is loaded once."""
    from adapt.generation.bench import Bench

    asked = suite.label, suite.questions
    if before is not None:
        return before.turned_to(*asked, suite.max_new_tokens)
    folder = Path(model)
    return Bench(folder if folder.is_dir() else model, *asked, config, state, suite.max_new_tokens)


def _write(
    bench: "Bench",
    benchmark: Benchmark,
    suite: "Suite",
    file: Path,
    rule: SteerConfig | None,
    state: Path,
) -> None:
    """Ask, write the answers, and the judge's verdicts where there are such."""
    from adapt.benchmarks import registry
    from adapt.generation import verdicts as judging

    arm = "steered" if rule else "plain"
    table = bench.ask(arm, rule).responses
    answers = dict(zip(table.id, table.response, strict=True))
    registry.write_answers(file, suite, answers)
    print(one_line(f"{suite.label}: {len(answers)} answers are in {file}"))
    scoring = registry.scoring(benchmark, file)
    if benchmark.name == "mmhal" and benchmark.judge is not None:
        texts = judging.verdicts(benchmark, suite, answers, arm, state / "verdicts")
        judged = file.with_name(f"{file.name}.verdicts.json")
        judged.write_text(judging.as_replies(texts, suite), encoding="utf-8")
        scoring = f"python -m adapt.score mmhal --responses {judged} --truth {file}"
    if scoring:
        print(one_line(f"{suite.label}: {scoring}"))


def _params(options: argparse.Namespace) -> Path:
    own = Path(adapt.__file__).parents[1] / PARAMS
    return options.params or (PARAMS if PARAMS.exists() or not own.exists() else own)


def _config(options: argparse.Namespace) -> Config:
    file = _params(options)
    config = params.load(params.read(file), "answer", Config, str(file))
    if isinstance(options.steer, float):
        steer = config.steer.model_copy(update={"alpha": options.steer})
        config = config.model_copy(update={"steer": steer})
    if options.batch is None:
        return config
    require(options.batch >= 1, "--batch", f"must be at least 1, got {options.batch}")
    return config.model_copy(update={"batch": options.batch})


def _benchmark(text: str, config: Config, limit: int | None) -> Benchmark:
    """The benchmark of an argument, or that of params.yaml with this label."""
    named = {one.called: one for one in config.benchmarks}
    benchmark = named[text] if text in named else parsed(text)
    if limit is None:
        return benchmark
    require(limit >= 1, "--limit", f"must be at least 1, got {limit}")
    return benchmark.model_copy(update={"limit": limit})


def _file(out: str, benchmark: Benchmark, count: int) -> Path:
    several = "several benchmarks need {label} in it, as in answers-{label}.json"
    require(count == 1 or "{label}" in out, f"--out {out}", several)
    file = Path(out.replace("{label}", benchmark.called))
    require(not file.is_dir(), f"--out {file}", "is a folder; name a file")
    return file


if __name__ == "__main__":
    sys.exit(main())
