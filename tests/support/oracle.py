"""Results of the official evaluators: a large set where its folder is beside the repository, and a
small one over inputs of our own in `tests/data/oracle`.
"""

import json
from pathlib import Path
from typing import Any

import pytest

from adapt.params import InputError
from adapt.score.text import english

FOLDER = Path(__file__).parents[3] / "shared" / "oracle"
OWN = Path(__file__).parents[1] / "data" / "oracle"


AMBER_DIMENSIONS = {  # the official headings of yes/no questions, spelled as they are
    "Descriminative Task": "",
    "Exsitence": "existence_",
    "Attribute": "attribute_",
    "State": "state_",
    "Number": "number_",
    "Action": "action_",
    "Relation": "relation_",
}


def load(name: str) -> Any:
    """A file of the large set; skips the test where it is missing."""
    if not (FOLDER / name).is_file():
        pytest.skip(f"official results {FOLDER / name} are not on this machine")
    return json.loads((FOLDER / name).read_text())


def own(name: str) -> Any:
    """A file of the small set, which is always there."""
    return json.loads((OWN / name).read_text(encoding="utf-8"))


def use_nltk_data(monkeypatch: pytest.MonkeyPatch) -> None:
    """NLTK looks beside the repository alone or, where nothing is there, into NLTK_DATA; skips the
    test where its data are in neither.
    """
    folder = FOLDER.parent / "nltk_data"
    if folder.is_dir():
        monkeypatch.setattr("nltk.data.path", [str(folder)])
    try:
        english.tags(english.words("a dog"))
        english.lemma("dogs", "n")
    except InputError as error:
        pytest.skip(str(error))
