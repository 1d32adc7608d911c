"""What is in the images: a table, and COCO's own files."""

import json
from pathlib import Path
from typing import Any

import pytest

from adapt.params import InputError
from adapt.score import coco

INSTANCES = {
    "images": [{"id": 1}, {"id": 2}, {"id": 3}],
    "categories": [{"id": 7, "name": "dog"}, {"id": 8, "name": "couch"}],
    "annotations": [
        {"image_id": 1, "category_id": 7},
        {"image_id": 1, "category_id": 8},
        {"image_id": 3, "category_id": 7},
    ],
}
CAPTIONS = {"images": [{"id": 2}], "annotations": [{"image_id": 2, "caption": "A sofa."}]}
NAMES = {"dog": "dog", "couch": "couch", "sofa": "couch"}


def read(path: Path, *wanted: str) -> coco.Truth:
    def mentioned(caption: str) -> list[str]:
        return [NAMES[word] for word in caption.lower().strip(".").split()[1:]]

    return coco.read(path, coco.Reading(wanted or None, NAMES.__getitem__, mentioned)).objects


def written(path: Path, content: Any) -> Path:
    path.write_text(json.dumps(content))
    return path


def test_a_table(tmp_path: Path) -> None:
    assert read(written(tmp_path / "truth.json", {"7": ["dog", "dog"], "8": []})) == {
        "7": ["dog"],
        "8": [],
    }


def test_coco_files_alone_and_as_a_folder(tmp_path: Path) -> None:
    instances = written(tmp_path / "instances_val2014.json", INSTANCES)
    assert read(instances, "1", "2", "4") == {"1": ["dog", "couch"], "2": []}
    assert list(read(instances)) == ["1", "2", "3"]
    with pytest.raises(InputError, match=r"has no instances_.*json or no captions_.*json"):
        read(tmp_path, "1")
    written(tmp_path / "captions_val2014.json", CAPTIONS)
    assert read(tmp_path, "1", "2") == {"1": ["dog", "couch"], "2": ["couch"]}


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ([1], "is no object of image ids"),
        ({}, "is no object of image ids"),
        ({"7": "dog"}, "'7' is 'dog', not a list of texts"),
        (
            {"annotations": [{"image_id": 1}], "images": [{"id": 1}]},
            "'category_id' is missing in a COCO file",
        ),
        ({"annotations": [3]}, "is not in the format of COCO's annotations"),
        (
            {**INSTANCES, "categories": [{"id": 7, "name": "tram"}]},
            "'tram' is missing in a COCO file, or in the synonyms",
        ),
    ],
)
def test_bad_files_are_named(content: Any, problem: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=f"truth.json: {problem}"):
        read(written(tmp_path / "truth.json", content), "1")
