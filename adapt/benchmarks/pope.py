"""POPE (arXiv 2305.10355): is there a certain object in the picture, yes or no.

`path` is one of its files, JSON Lines of {question_id, image, text, label}; a name for each file of
the three (random, popular, adversarial) is its `label`. Pictures are in `images`, or beside the
file, in `val2014/` or `images/` there or one folder up.

    parser   whose program reads the answers (official)
    suffix   after a question (what LLaVA-1.5 was asked with; "" for the bare question)
"""

from collections.abc import Mapping
from pathlib import Path

from adapt.benchmarks import suite
from adapt.benchmarks.given import given
from adapt.benchmarks.settings import Benchmark
from adapt.benchmarks.suite import Files, Suite
from adapt.params import require
from adapt.score import forms, rows

PICTURES = ("images", "image", "val2014", "coco/val2014")


def read(benchmark: Benchmark) -> Suite:
    """A file of POPE's."""
    file = Path(benchmark.path)
    some = ", ".join(sorted(path.name for path in file.glob("*.json*"))[:3])
    advice = f"name one file, and give it a label: {some or 'a JSON file'}"
    require(not file.is_dir(), f"pope: {file}", f"is a folder; {advice}")
    asked = rows.by_id(rows.read(file), "question_id")
    around = [base / name for base in (file.parent, file.parent.parent) for name in PICTURES]
    looked = suite.folder_of(benchmark, [file.parent, *around])
    paths = suite.located(looked, [row.text("image") for row in asked.values()])
    questions, missing = [], {}
    for identity, row in asked.items():
        image, text = row.text("image"), suite.shortened(benchmark, row.text("text"))
        if image not in paths:
            missing[identity] = image
        pictures = Files([paths[image]] if image in paths else [])
        known = {"answer": row.text("label").strip().lower()}
        questions.append(suite.question(identity, image, pictures, "exists", text, **known))
    whole = Suite(
        label=benchmark.called,
        name=benchmark.name,
        questions=questions,
        max_new_tokens=suite.limited(benchmark, {"exists": suite.YES_OR_NO}),
        records={identity: row.cells for identity, row in asked.items()},
        fingerprint=suite.fingerprint([file]),
    )
    return suite.finished(whole, benchmark, missing, looked)


def answered(
    benchmark: Benchmark, answers: Mapping[str, str], verdicts: Mapping[str, str]
) -> forms.Answers:
    """The answers as `adapt.score pope` reads them."""
    parser = benchmark.parser or "official"
    column = "text" if parser == "vcd" else "answer"
    cells = [{"question_id": identity, column: text} for identity, text in answers.items()]
    return forms.read_pope(given(benchmark.called, cells), Path(benchmark.path), parser)


def truth(benchmark: Benchmark) -> Path | None:
    """The file of questions."""
    return Path(benchmark.path)


def form(suite_: Suite, answers: Mapping[str, str]) -> str:
    """JSON Lines: the official program reads question and answer, VCD's reads text."""
    table = [
        {
            "question_id": suite_.records[identity]["question_id"],
            "question": suite_.records[identity]["text"],
            "answer": text,
            "text": text,
        }
        for identity, text in answers.items()
    ]
    return suite.as_lines(table)
