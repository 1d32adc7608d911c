"""MMHal-Bench (arXiv 2309.14525): 96 questions whose answers a language model judges.

`path` is response_template.json, a list of {image_id, image_src, image_content, question,
gt_answer, ...}, or RLHF-V's JSON Lines with the picture in `image`. Pictures published by address
are files of `images`, named as the address ends or as image_id.

    verdicts   a file of the judge's texts in the order of the questions, {arm} in its name standing
               for whose answers they are about
    judge      or the endpoint that is asked (`adapt/generation/verdicts.py`)

Answers can be made without either, and are then not scored.
"""

from collections.abc import Mapping
from pathlib import Path

from adapt.benchmarks import suite
from adapt.benchmarks.given import given
from adapt.benchmarks.settings import Benchmark
from adapt.benchmarks.suite import Suite
from adapt.params import InputError, require
from adapt.score import forms, judged, rows

ANSWER = 1024  # tokens


def read(benchmark: Benchmark) -> Suite:
    """The questions in their order, which their types follow from."""
    file = Path(benchmark.path)
    asked = {str(number): row for number, row in enumerate(rows.read(file))}
    pictures = suite.Pictures(benchmark, file, asked, ("image", "image_src", "image_id"))
    questions = []
    for i, row in asked.items():
        image = row.id("image_id") if row.has("image_id") else i
        known = {"answer": row.text("gt_answer")}
        text = row.text("question")
        questions.append(suite.question(i, image, pictures.of(i), "other", text, **known))
    whole = Suite(
        label=benchmark.called,
        name=benchmark.name,
        questions=questions,
        max_new_tokens=suite.limited(benchmark, {"other": ANSWER}),
        records={i: suite.without_pictures(row.cells) for i, row in asked.items()},
        fingerprint=suite.fingerprint([file]),
    )
    # A question's type is its place modulo the number of types: what stays are whole rounds.
    rounds = len(judged.TYPES)
    looked = pictures.missing, pictures.looked
    return suite.finished(whole, benchmark, *looked, lambda one: str(int(one.id) // rounds))


def answered(
    benchmark: Benchmark, answers: Mapping[str, str], verdicts: Mapping[str, str]
) -> forms.Answers:
    """The verdicts as `adapt.score mmhal` reads them; all answers of all questions, in order."""
    if not verdicts:
        advice = "give verdicts, a file of them, or judge, an endpoint"
        raise InputError(f"{benchmark.called}: nobody has judged the answers; {advice}")
    lacking = [i for i in answers if i not in verdicts]
    require(not lacking, benchmark.called, f"{len(lacking)} of {len(answers)} have no verdict")
    cells = [{"judge": verdicts[i]} for i in answers]
    return forms.read_mmhal(given(benchmark.called, cells), None)


def truth(benchmark: Benchmark) -> Path | None:
    """None: a judge's texts say all."""
    return None


def form(suite_: Suite, answers: Mapping[str, str]) -> str:
    """The published list with `model_answer` in each."""
    table = [{**suite_.records[i], "model_answer": text} for i, text in answers.items()]
    return suite.as_json(table)
