"""AMBER (arXiv 2311.07397): descriptions of 1,004 pictures, and 14,216 yes/no questions about them.

`path` is the published folder, or its `data/`: annotations.json, relation.json, query/query_*.json
(query_all.json where it is there). Pictures are in `image/` inside or beside it, as AMBER_1.jpg.

    part         generative: descriptions alone; discriminative: questions alone (all)
    similarity   JSON: pairs of similar words (without: equal words only)
    lemmas       JSON: form to lemma (without: WordNet from NLTK_DATA)
    suffix       after yes/no questions; AMBER counts the exact answers Yes and No

Descriptions are asked for in AMBER's words. What its annotators listed is the row's truth.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from adapt.benchmarks import suite
from adapt.benchmarks.given import given, optional
from adapt.benchmarks.settings import Benchmark
from adapt.benchmarks.suite import Files, Suite
from adapt.data.schema import Example, SceneObject
from adapt.params import require
from adapt.score import forms, rows
from adapt.score.amber import GENERATIVE
from adapt.score.ids import Ids

PICTURES = ("image", "images")
# The annotations are read for every question: the types that `part` keeps.
_PARTS = {"generative": (True,), "discriminative": (False,), "all": (True, False)}


def read(benchmark: Benchmark) -> Suite:
    """AMBER's queries, with its annotations as truth."""
    folder = _data(Path(benchmark.path))
    notes = {row.id("id"): row for row in rows.read(folder / "annotations.json")}
    files = _queries(folder)
    given_ids = {row.id("id"): row for file in files for row in rows.read(file)}
    known = Ids(notes), folder / "annotations.json"
    asked = rows.by_known_id(given_ids.values(), "id", *known)
    names = [row.text("image") for row in asked.values()]
    usual = [base / name for base in (folder, folder.parent) for name in PICTURES]
    looked = suite.folder_of(benchmark, usual)
    paths = suite.located(looked, names)
    questions = []
    for identity, row in asked.items():
        one = _question(benchmark, identity, row, notes[identity], paths)
        if (one.kind == "describe") in _PARTS[benchmark.part or "all"]:
            questions.append(one)
    # Words are counted by a longest answer of their own.
    lengths = {"describe": suite.DESCRIPTION, "exists": suite.YES_OR_NO}
    whole = Suite(
        label=benchmark.called,
        name=benchmark.name,
        questions=questions,
        max_new_tokens=suite.limited(benchmark, lengths),
        fingerprint=suite.fingerprint([folder / "annotations.json", *files]),
    )
    missing = {i: row.text("image") for i, row in asked.items() if row.text("image") not in paths}
    return suite.finished(whole, benchmark, missing, looked)


def answered(
    benchmark: Benchmark, answers: Mapping[str, str], verdicts: Mapping[str, str]
) -> forms.Answers:
    """The answers as `adapt.score amber` reads them."""
    cells = [{"id": identity, "response": text} for identity, text in answers.items()]
    files = optional(benchmark.similarity), optional(benchmark.lemmas)
    return forms.read_amber(given(benchmark.called, cells), _data(Path(benchmark.path)), *files)


def truth(benchmark: Benchmark) -> Path | None:
    """The folder that `adapt.score amber --truth` takes."""
    return _data(Path(benchmark.path))


def form(suite_: Suite, answers: Mapping[str, str]) -> str:
    """AMBER's own: one list of {"id", "response"}."""
    return suite.as_json({"id": int(i), "response": text} for i, text in answers.items())


def _data(path: Path) -> Path:
    """The folder of the annotations: the published one, or `data/` in it."""
    places = [path, path / "data"]
    found = [place for place in places if (place / "annotations.json").is_file()]
    require(bool(found), f"amber: {path}", "has no annotations.json, nor has its data/")
    return found[0]


def _queries(folder: Path) -> list[Path]:
    """The files of queries: the one of all of them, or those that there are."""
    every = folder / "query" / "query_all.json"
    files = [every] if every.is_file() else sorted((folder / "query").glob("query_*.json"))
    require(bool(files), f"amber: {folder / 'query'}", "has no query_*.json")
    return files


def _question(
    benchmark: Benchmark,
    identity: str,
    row: rows.Row,
    note: rows.Row,
    paths: Mapping[str, Path],
) -> Example:
    image, text = row.text("image"), row.text("query")
    pictures = Files([paths[image]] if image in paths else [])
    known: dict[str, Any] = {}
    if note.text("type") == GENERATIVE:
        things = [SceneObject(name=name, colour="", box=None) for name in note.texts("truth")]
        known = {"objects": tuple(things), "absent": tuple(note.texts("hallu"))}
        return suite.question(identity, image, pictures, "describe", text, **known)
    known = {"answer": note.text("truth")}
    short = suite.shortened(benchmark, text)
    return suite.question(identity, image, pictures, "exists", short, **known)
