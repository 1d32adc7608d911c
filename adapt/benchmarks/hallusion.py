"""HallusionBench (arXiv 2310.14566): yes/no questions about figures, original and edited.

`path` is HallusionBench.json. Figures are in `images`, the folder that the `filename` of its rows
is relative to, or in hallusion_bench/ beside the file.

    verdicts   a file of records with the judge's gpt4v_output_gpt_check and same, {arm} in its name
               standing for whose answers they are about (without: by rule)
    suffix     after a question ("" for the bare question, as published)

Without verdicts an answer is read for yes or no, as `adapt.score pope --mode strict` reads one, and
compared with the truth: the questions are all of that kind. Questions without a figure are asked
about a white picture, because a prompt of a vision-language model has one here.
"""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from adapt.benchmarks import suite
from adapt.benchmarks.given import given, optional
from adapt.benchmarks.settings import Benchmark
from adapt.benchmarks.suite import Files, Suite
from adapt.data.schema import Example
from adapt.score import forms, rows
from adapt.score.layout import HALLUSION_KEY
from adapt.score.pope import parse_strict

KEY = HALLUSION_KEY
NOTE = "questions without a figure ({count}) are asked about a white picture"
BY_RULE = "answers are read for yes or no; published figures have GPT's verdicts"
SIZE = 336  # pixels of the white picture


def read(benchmark: Benchmark) -> Suite:
    """All questions, by their five keys."""
    file = Path(benchmark.path)
    asked = {"_".join(map(row.id, KEY)): row for row in rows.read(file)}
    usual = [file.parent, file.parent / "hallusion_bench", file.parent / "images"]
    looked = suite.folder_of(benchmark, usual)
    questions, missing, blank = [], {}, _white()
    for i, row in asked.items():
        name = row.text("filename") if row.has("filename") else ""
        path = _path(looked, name)
        if name and path is None:
            missing[i] = name
        pictures: Sequence[bytes] = Files([path]) if path else () if name else (blank,)
        questions.append(_question(benchmark, i, row, name, pictures))
    without = sum(not row.has("filename") for row in asked.values())
    notes = [NOTE.format(count=without)] if without else []
    whole = Suite(
        label=benchmark.called,
        name=benchmark.name,
        questions=questions,
        max_new_tokens=suite.limited(benchmark, {"exists": suite.DESCRIPTION}),
        records={i: row.cells for i, row in asked.items()},
        notes=(*notes, *([] if benchmark.verdicts else [BY_RULE])),
        fingerprint=suite.fingerprint([file]),
    )
    # Answers are compared with that to figure 0: a question is asked about all its figures.
    pair = {i: "_".join(_pair(row.cells)) for i, row in asked.items()}
    return suite.finished(whole, benchmark, missing, looked, lambda one: pair[one.id])


def answered(
    benchmark: Benchmark, answers: Mapping[str, str], verdicts: Mapping[str, str]
) -> forms.Answers:
    """Records with verdicts, given or by rule, as `adapt.score hallusion` reads them."""
    asked = {"_".join(map(row.id, KEY)): row.cells for row in rows.read(Path(benchmark.path))}
    judged = verdicts or by_rule(asked, answers)
    cells = []
    for i, text in answers.items():
        check, _, same = judged.get(i, "").partition(" ")
        verdict = {"gpt4v_output_gpt_check": check, "same": same or "0"}
        cells.append({**asked[i], "model_prediction": text, **verdict})
    return forms.read_hallusion(given(benchmark.called, cells), optional(None))


def truth(benchmark: Benchmark) -> Path | None:
    """None: the records that are written have it, and wait for verdicts."""
    return None


def form(suite_: Suite, answers: Mapping[str, str]) -> str:
    """The published records with `model_prediction`, which its own program has judged."""
    table = [{**suite_.records[i], "model_prediction": text} for i, text in answers.items()]
    return suite.as_json(table)


def by_rule(asked: Mapping[str, Mapping[str, Any]], answers: Mapping[str, str]) -> dict[str, str]:
    """Of each answer "check same": 1 right, 0 wrong, 2 neither yes nor no; as that to figure 0?

    >>> of = {"category": "VD", "subcategory": "s", "set_id": "0", "question_id": "0"}
    >>> asked = {"a": {**of, "figure_id": "0", "gt_answer": "1"},
    ...          "b": {**of, "figure_id": "1", "gt_answer": "0"}}
    >>> by_rule(asked, {"a": "Yes.", "b": "Yes, it is."})
    {'a': '1 1', 'b': '0 1'}
    """
    said = {i: parse_strict(text) for i, text in answers.items()}
    first = {_pair(asked[i]): word for i, word in said.items() if str(asked[i]["figure_id"]) == "0"}
    verdicts = {}
    for i, word in said.items():
        right = word == (str(asked[i]["gt_answer"]) == "1")
        check = "2" if word is None else str(int(right))
        verdicts[i] = f"{check} {int(first.get(_pair(asked[i])) == word)}"
    return verdicts


def _pair(record: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(str(record[name]) for name in KEY if name != "figure_id")


def _path(folders: Sequence[Path], name: str) -> Path | None:
    """The file of a figure, which the published names put below hallusion_bench/."""
    short = name.removeprefix("./").removeprefix("hallusion_bench/")
    inside = name and not Path(name).is_absolute() and ".." not in Path(name).parts
    tried = [folder / one for folder in folders for one in (name, short)] if inside else []
    return next((path for path in tried if path.is_file()), None)


def _question(
    benchmark: Benchmark, identity: str, row: rows.Row, name: str, pictures: Sequence[bytes]
) -> Example:
    text = row.text("question") + (benchmark.suffix or "")
    known = {"answer": "yes" if row.id("gt_answer") == "1" else "no"}
    image = "_".join(row.id(key) for key in KEY[:4]) if name else "none"
    return suite.question(identity, image, pictures, "exists", text, **known)


def _white() -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (SIZE, SIZE), "white").save(file, "PNG")
    return file.getvalue()
