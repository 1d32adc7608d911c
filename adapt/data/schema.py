"""The two records that everything downstream knows, and what is true of their pictures.

`Example` is evaluation data: a question about pictures, the answer to it, and what is truly there.
`Preference` is preference data: two answers to a question, the better one first; it is a question
as well (`asked`). What is truly there has three states: None where nobody knows, () where it is
known that there is nothing, or what there is.

A data set is a folder with `train.parquet`, `validation.parquet` and `test.parquet`
(`adapt/data/tables.py` has their columns) and, where its objects are of a closed list,
`vocabulary.json`: {"objects": {"house": ["house", "houses"], ...}, "colours": ["red", ...]}, every
object a row may name, with the lower-case words that mean it in an answer.
`adapt/data/validation.py` says what is refused.
"""

import io
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from PIL import Image, ImageOps

from adapt.params import InputError, require

KINDS = ("describe", "exists", "colour", "other")
"""Of questions: for a description, yes or no, a colour; "other" is any question besides."""
SPLITS = ("train", "validation", "test")
IMAGE_TAG = "<image>"


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


def open_picture(content: bytes) -> Image.Image:
    """The picture in the bytes of an image file, as every part of the project sees it.

    Upright where EXIF says that the camera was turned, transparent parts on white, RGB.
    """
    picture = ImageOps.exif_transpose(Image.open(io.BytesIO(content)))
    if picture.has_transparency_data:
        layer = picture.convert("RGBA")
        picture = Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer)
    return picture.convert("RGB")


def open_images(example: Example) -> list[Image.Image]:
    """The decoded pictures of a row."""
    return [open_picture(content) for content in example.images]


def read_vocabulary(path: Path) -> Vocabulary | None:
    """Read and check `vocabulary.json`; None where there is none."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        objects = {name: tuple(words) for name, words in content["objects"].items()}
        vocabulary = Vocabulary(objects=objects, colours=tuple(content["colours"]))
    except FileNotFoundError:
        return None
    except (UnicodeDecodeError, json.JSONDecodeError):
        raise InputError(f"{path}: not JSON") from None
    except (KeyError, TypeError, AttributeError):
        expected = '{"objects": {name: [word, ...]}, "colours": [word, ...]}'
        raise InputError(f"{path}: expected {expected}") from None
    owner: dict[str, str] = {}
    for name, words in vocabulary.objects.items():
        require(bool(words), str(path), f"object {name!r} has no words")
        for word in words:
            good = isinstance(word, str) and word.strip() and word == word.lower()
            require(bool(good), str(path), f"object {name!r}: {word!r} is not a lower-case word")
            problem = f"{word!r} means both {owner.get(word)!r} and {name!r}"
            require(word not in owner, str(path), problem)
            owner[word] = name
    return vocabulary


def write_vocabulary(path: Path, vocabulary: Vocabulary) -> None:
    """Write `vocabulary.json`."""
    path.write_text(json.dumps(asdict(vocabulary), indent=1) + "\n", encoding="utf-8")
