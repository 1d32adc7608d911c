"""Every benchmark by its name: read what it asks, score what was answered, write it in its form.

suite = read(benchmark)                      # questions, as Examples
scored = score(benchmark, {"1": "A dog."})   # adapt.score's figures, by question id
write_answers(path, suite, answers)          # the file that the benchmark's own program reads
"""

from collections.abc import Mapping
from pathlib import Path
from types import ModuleType

from adapt.benchmarks import amber, chair, hallusion, mmhal, objhal, own, pope
from adapt.benchmarks.settings import Benchmark, Name
from adapt.benchmarks.suite import Suite
from adapt.files import whole_file
from adapt.score import forms
from adapt.score.scored import Mode, Scored

_MODULES: Mapping[Name, ModuleType] = {
    "amber": amber,
    "pope": pope,
    "chair": chair,
    "objhal": objhal,
    "mmhal": mmhal,
    "hallusion": hallusion,
    "own": own,
}


def read(benchmark: Benchmark) -> Suite:
    """Its questions; InputError names the file, or says how many pictures are missing."""
    return _MODULES[benchmark.name].read(benchmark)


def answered(
    benchmark: Benchmark, answers: Mapping[str, str], verdicts: Mapping[str, str] = {}
) -> forms.Answers:
    """Answers by question id, ready to be scored; `scale` is what a ratio of one is in metrics.

    `verdicts` are what a judge said of each, where one is needed. InputError where the benchmark
    cannot be scored so.
    """
    return _MODULES[benchmark.name].answered(benchmark, answers, verdicts)


def score(
    benchmark: Benchmark,
    answers: Mapping[str, str],
    verdicts: Mapping[str, str] = {},
    mode: Mode = "official",
) -> Scored:
    """The figures of `python -m adapt.score` over the written answers."""
    return answered(benchmark, answers, verdicts).score(mode)


def rehearse(benchmark: Benchmark, suite: Suite) -> None:
    """Score made-up answers: what scoring lacks is told before hours of answering.

    Raises InputError for missing truth, tables or language data.
    """
    first = {one.kind: one for one in reversed(suite.questions)}
    together = suite.name in ("mmhal", "hallusion")  # which are not scored one by one
    asked = [one.id for one in (suite.questions if together else first.values())]
    verdicts = dict.fromkeys(asked, "Rating: 6") if suite.name == "mmhal" else {}
    score(benchmark, dict.fromkeys(asked, "Yes"), verdicts)


def scoring(benchmark: Benchmark, path: Path) -> str:
    """The command that scores a file of answers; "" where it first needs a judge."""
    truth = _MODULES[benchmark.name].truth(benchmark)
    command = f"python -m adapt.score {benchmark.name} --responses {path} --truth {truth}"
    return command if truth is not None else ""


def write_answers(path: Path, suite: Suite, answers: Mapping[str, str]) -> None:
    """Write the answers in the benchmark's published form, in the order of its questions."""
    ordered = {one.id: answers[one.id] for one in suite.questions if one.id in answers}
    text = _MODULES[suite.name].form(suite, ordered)
    with whole_file(path) as partial:
        partial.write_text(text, encoding="utf-8")
