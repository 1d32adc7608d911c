"""A split of ours as a benchmark: evaluation data of your own, scored as the pipeline scores it.

`path` is a parquet file in the project's columns (`adapt/data/columns.py`), or a folder whose
`test.parquet` is meant; `vocabulary.json` lies beside it where objects are counted. Answers are as
long as `max_new_tokens` of params.yaml allows.
"""

from collections.abc import Mapping
from pathlib import Path

from adapt.benchmarks import suite
from adapt.benchmarks.given import given
from adapt.benchmarks.settings import Benchmark
from adapt.benchmarks.suite import Suite
from adapt.data.schema import KINDS
from adapt.data.tables import read_split
from adapt.score import forms


def read(benchmark: Benchmark) -> Suite:
    """The rows of the split."""
    file = _file(Path(benchmark.path))
    longest = benchmark.max_new_tokens
    whole = Suite(
        label=benchmark.called,
        name=benchmark.name,
        questions=read_split(file),
        max_new_tokens={} if longest is None else dict.fromkeys(KINDS, longest),
        fingerprint=suite.fingerprint([file]),
    )
    return suite.finished(whole, benchmark, {}, [])


def answered(
    benchmark: Benchmark, answers: Mapping[str, str], verdicts: Mapping[str, str]
) -> forms.Answers:
    """The answers as `adapt.score own` reads them."""
    cells = [{"id": identity, "response": text} for identity, text in answers.items()]
    return forms.read_own(given(benchmark.called, cells), _file(Path(benchmark.path)))


def truth(benchmark: Benchmark) -> Path | None:
    """The split file."""
    return _file(Path(benchmark.path))


def form(suite_: Suite, answers: Mapping[str, str]) -> str:
    """JSON Lines of {"id", "response"}."""
    return suite.as_lines({"id": i, "response": text} for i, text in answers.items())


def _file(path: Path) -> Path:
    return path / "test.parquet" if path.is_dir() else path
