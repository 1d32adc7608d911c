"""Object HalBench (arXiv 2312.00849): objects in descriptions of 300 COCO pictures.

`path` is its file of questions, JSON Lines or JSON of image_id, question (or prompt) and the
picture: base64 in `image`, as RLHF-V publishes it, or the name of a file in `images`.

    truth      COCO's annotations (folder or file), or {image: [objects]}
    synonyms   an object a line: name, synonym, ... (without: our own)

Published figures take the objects that a language model has listed of each description; where no
one does that, the words of the descriptions are read (`adapt/score/object_halbench.py`, plain).
"""

from collections.abc import Mapping
from pathlib import Path

from adapt.benchmarks import suite
from adapt.benchmarks.given import given, optional
from adapt.benchmarks.settings import Benchmark
from adapt.benchmarks.suite import Suite
from adapt.params import InputError
from adapt.score import forms, rows

NOTE = "objects are read from the words of the descriptions; published figures list them with GPT"


def read(benchmark: Benchmark) -> Suite:
    """The questions of the file."""
    file = Path(benchmark.path)
    asked = rows.by_id(rows.read(file), "image_id")
    pictures = suite.Pictures(benchmark, file, asked, ("image", "image_path", "image_name"))
    questions = [
        suite.question(i, i, pictures.of(i), "describe", row.text("question", "prompt"))
        for i, row in asked.items()
    ]
    whole = Suite(
        label=benchmark.called,
        name=benchmark.name,
        questions=questions,
        max_new_tokens=suite.limited(benchmark, {"describe": suite.DESCRIPTION}),
        records={i: suite.without_pictures(row.cells) for i, row in asked.items()},
        notes=(NOTE,),
        fingerprint=suite.fingerprint([file]),
    )
    return suite.finished(whole, benchmark, pictures.missing, pictures.looked)


def answered(
    benchmark: Benchmark, answers: Mapping[str, str], verdicts: Mapping[str, str]
) -> forms.Answers:
    """The answers as `adapt.score objhal` reads them."""
    if benchmark.truth is None:
        advice = "give truth: COCO's annotations, or a file of objects by image"
        raise InputError(f"{benchmark.called}: what is in the pictures is not known; {advice}")
    cells = [{"image_id": image, "caption": text} for image, text in answers.items()]
    files = Path(benchmark.truth), optional(benchmark.synonyms)
    return forms.read_objhal(given(benchmark.called, cells), *files)


def truth(benchmark: Benchmark) -> Path | None:
    """What is in the pictures."""
    return optional(benchmark.truth)


def form(suite_: Suite, answers: Mapping[str, str]) -> str:
    """JSON Lines: the question's own columns and `answer`, which RLHF-V's program reads."""
    table = [{**suite_.records[image], "answer": text} for image, text in answers.items()]
    return suite.as_lines(table)
