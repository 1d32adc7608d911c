"""CHAIR on COCO (arXiv 1809.02156): objects in free descriptions that are not in the picture.

`path` is COCO's folder, or its `annotations/`: instances_*.json and captions_*.json. The pictures
asked about are those of instances_val2014.json, or of the only file of instances; they lie in
`val2014/` (whatever the file of instances is named for) inside or beside it.

    limit      papers describe 500 pictures of val2014 that they draw; 0 would be all 40,504
    variant    whose program counts (opera)
    synonyms   an object a line: name, synonym, ... (without: our own)

Truth is CHAIR's: what is segmented, and what the reference captions mention.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from adapt.benchmarks import suite
from adapt.benchmarks.given import given, optional
from adapt.benchmarks.settings import Benchmark
from adapt.benchmarks.suite import Files, Suite
from adapt.params import InputError, require
from adapt.score import forms
from adapt.score.content import read_json

PROMPT = "Please describe this image in detail."  # OPERA's and VCD's, which papers compare by


def read(benchmark: Benchmark) -> Suite:
    """A description of each picture."""
    folder = annotations(Path(benchmark.path))
    file = instances(folder)
    images = _images(file)
    split = file.stem.removeprefix("instances_")
    named = [base / sub for base in (folder, folder.parent) for sub in (split, f"images/{split}")]
    looked = suite.folder_of(benchmark, [*named, folder.parent / "images"])
    paths = suite.located(looked, images.values())
    questions = [
        suite.question(i, i, Files([paths[name]] if name in paths else []), "describe", PROMPT)
        for i, name in images.items()
    ]
    whole = Suite(
        label=benchmark.called,
        name=benchmark.name,
        questions=questions,
        max_new_tokens=suite.limited(benchmark, {"describe": suite.DESCRIPTION}),
        fingerprint=suite.fingerprint([file]),
    )
    missing = {i: name for i, name in images.items() if name not in paths}
    return suite.finished(whole, benchmark, missing, looked)


def answered(
    benchmark: Benchmark, answers: Mapping[str, str], verdicts: Mapping[str, str]
) -> forms.Answers:
    """The answers as `adapt.score chair` reads them."""
    cells = [{"image_id": image, "caption": text} for image, text in answers.items()]
    truth, synonyms = annotations(Path(benchmark.path)), optional(benchmark.synonyms)
    variant = benchmark.variant or "opera"
    return forms.read_chair(given(benchmark.called, cells), truth, synonyms, variant)


def truth(benchmark: Benchmark) -> Path | None:
    """The folder of COCO's annotations."""
    return annotations(Path(benchmark.path))


def form(suite_: Suite, answers: Mapping[str, str]) -> str:
    """JSON Lines of {"image_id", "caption"}, as OPERA's program reads them."""
    table = [{"image_id": int(image), "caption": text} for image, text in answers.items()]
    return suite.as_lines(table)


def annotations(path: Path) -> Path:
    """The folder of COCO's annotation files: the published folder's, or itself."""
    places = [path, path / "annotations"]
    found = [place for place in places if any(place.glob("instances_*.json"))]
    require(bool(found), f"chair: {path}", "has no instances_*.json, nor has its annotations/")
    return found[0]


def instances(folder: Path) -> Path:
    """The file of the pictures that are asked about."""
    files = sorted(folder.glob("instances_*.json"))
    validation = [file for file in files if file.stem == "instances_val2014"]
    advice = "has several instances_*.json and none of val2014; leave one there"
    require(bool(validation) or len(files) == 1, str(folder), advice)
    return (validation or files)[0]


def _images(file: Path) -> dict[str, str]:
    """File name by image id, in the order of the ids."""
    content: Any = read_json(file)
    try:
        named = {int(image["id"]): str(image["file_name"]) for image in content["images"]}
    except (TypeError, KeyError, ValueError):
        raise InputError(f"{file}: has no images with id and file_name") from None
    return {str(i): named[i] for i in sorted(named)}
