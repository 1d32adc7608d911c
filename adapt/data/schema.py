"""The two records that everything downstream knows, and what is true of their pictures.

`Example` is evaluation data: a question about pictures, the answer to it, and what is truly there.
`Preference` is preference data: two answers to a question, the better one first; it is a question
as well (`asked`). What is truly there has three states: None where nobody knows, () where it is
known that there is nothing, or what there is.

A data set is a folder with `train.parquet`, `validation.parquet` and `test.parquet`
(`adapt/data/columns.py` has their columns) and, where its objects are of a closed list,
`vocabulary.json`: {"objects": {"house": ["house", "houses"], ...}, "colours": ["red", ...]}, every
object a row may name, with the lower-case words that mean it in an answer.
`adapt/data/validation.py` says what is refused.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from adapt.data.pictures import open_picture
from adapt.data.readers.record import Unreadable
from adapt.data.readers.values import parsed
from adapt.params import InputError, require, shown

KINDS = ("describe", "exists", "colour", "other")
"""Of questions: for a description, yes or no, a colour; "other" is any question besides."""
SPLITS = ("train", "validation", "test")
IMAGE_TAG = "<image>"
MAX_VOCABULARY = 1 << 24
"""Bytes of `vocabulary.json`."""
MAX_WORDS = 100_000
"""Of all objects and colours together; the largest lists of objects have some ten thousand."""


@dataclass(frozen=True, kw_only=True)
class Turn:
    """An earlier turn of a dialogue, which the question goes on from."""

    question: str
    answer: str


@dataclass(frozen=True, kw_only=True)
class SceneObject:
    """Something truly there; `box` is (x0, y0, x1, y1) in 0..1 of the first picture.

    `colour` "" and `box` None: not known.
    """

    name: str
    colour: str
    box: tuple[float, float, float, float] | None

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> "SceneObject":
        """From the values of a file, in which a box is a list and a colour may be null."""
        box = values["box"]
        return cls(name=values["name"], colour=values["colour"] or "", box=box and tuple(box))


@dataclass(frozen=True, kw_only=True)
class Example:
    """One question about one picture or several: bytes of image files, see `open_images`.

    `absent` are objects that usually come along and are not there: likely hallucinations (AMBER's
    targets).
    """

    id: str
    image_id: str
    images: Sequence[bytes]
    kind: str
    history: tuple[Turn, ...]
    question: str
    answer: str
    objects: tuple[SceneObject, ...] | None
    absent: tuple[str, ...] | None


@dataclass(frozen=True, kw_only=True)
class Preference:
    """Two answers to one question, `chosen` the better one.

    `rejected_images` are the pictures that the rejected answer is about, () for the same ones; a
    score is None where nobody gave one.
    """

    id: str
    image_id: str
    images: Sequence[bytes]
    kind: str
    history: tuple[Turn, ...]
    question: str
    chosen: str
    rejected: str
    rejected_images: Sequence[bytes]
    chosen_score: float | None
    rejected_score: float | None
    objects: tuple[SceneObject, ...] | None
    absent: tuple[str, ...] | None

    def asked(self) -> Example:
        """The question alone, whose answer is the chosen one."""
        names = ("id", "image_id", "images", "kind", "history", "question", "objects", "absent")
        return Example(**{name: getattr(self, name) for name in names}, answer=self.chosen)


@dataclass(frozen=True, kw_only=True)
class Vocabulary:
    """Canonical object names with the words that mean them, and the colour words."""

    objects: dict[str, tuple[str, ...]]
    colours: tuple[str, ...]


def open_images(example: Example | Preference) -> list[Image.Image]:
    """The decoded pictures of a row."""
    return [open_picture(content) for content in example.images]


def read_vocabulary(path: Path) -> Vocabulary | None:
    """Read and check `vocabulary.json`; None where there is none."""
    try:
        with path.open("rb") as file:
            content = file.read(MAX_VOCABULARY + 1)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from None
    problem = f"has more than {MAX_VOCABULARY >> 20} MiB, too large for a vocabulary"
    require(len(content) <= MAX_VOCABULARY, str(path), problem)
    try:
        return vocabulary_of(parsed(content.removeprefix(b"\xef\xbb\xbf")), str(path))
    except Unreadable as error:
        raise InputError(f"{path}: {error}") from None


def vocabulary_of(content: Any, where: str) -> Vocabulary:
    """The content of a `vocabulary.json` that is at `where`, checked."""
    content = content if isinstance(content, dict) else {}
    objects, colours = content.get("objects"), content.get("colours")
    lists: list[Any] = [*objects.values(), colours] if isinstance(objects, dict) else [None]
    expected = 'expected {"objects": {name: [word, ...]}, "colours": [word, ...]}'
    require(all(isinstance(words, list) for words in lists), where, expected)
    count = sum(map(len, lists))
    require(count <= MAX_WORDS, where, f"has {count} words, more than {MAX_WORDS}")
    for colour in colours:
        require(_is_word(colour), where, f"colour {shown(colour)} is not a lower-case word")
    owner: dict[str, str] = {}
    for name, words in objects.items():
        require(bool(words), where, f"object {shown(name)} has no words")
        for word in words:
            problem = f"object {shown(name)}: {shown(word)} is not a lower-case word"
            require(_is_word(word), where, problem)
            problem = f"{shown(word)} means both {shown(owner.get(word))} and {shown(name)}"
            require(word not in owner, where, problem)
            owner[word] = name
    named = {name: tuple(words) for name, words in objects.items()}
    return Vocabulary(objects=named, colours=tuple(colours))


def _is_word(word: Any) -> bool:
    return isinstance(word, str) and bool(word.strip()) and word == word.lower()


def write_vocabulary(path: Path, vocabulary: Vocabulary) -> None:
    """Write `vocabulary.json`."""
    path.write_text(json.dumps(asdict(vocabulary), indent=1) + "\n", encoding="utf-8")
