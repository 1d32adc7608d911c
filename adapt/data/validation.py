"""Validation of rows that someone brings: an `Example`, or the first reason against it.

Every reason names the file, the row (counted from 0, as in `dataset[0]`), its id and the column.
Images are decoded completely, because a truncated one would only be noticed in the middle of a
training run.
"""

import re
import struct
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from PIL import Image

from adapt.data.schema import IMAGE_TAG, KINDS, Example, SceneObject, Vocabulary, open_picture
from adapt.params import InputError, require

# What Pillow raises for files that are damaged, cut off or made to harm.
UNREADABLE = (
    *(OSError, SyntaxError, ValueError, EOFError, TypeError, KeyError, struct.error),
    Image.DecompressionBombError,
)


class RowError(InputError):
    """A row that fails validation: where it is, and why."""

    def __init__(self, file: Path, row: int, row_id: str, reason: str) -> None:
        super().__init__(f"{file}: row {row} (id {row_id or 'missing'}): {reason}")
        self.file, self.row, self.row_id, self.reason = file, row, row_id, reason


def validate(
    row: Mapping[str, Any], row_number: int, *, file: Path, vocabulary: Vocabulary | None
) -> Example:
    """The row as an `Example`; `RowError` with the first reason why it cannot be one."""
    try:
        return _checked(row, file.parent, vocabulary)
    except InputError as error:
        raise RowError(file, row_number, str(row["id"] or ""), str(error)) from None


def _checked(row: Mapping[str, Any], folder: Path, vocabulary: Vocabulary | None) -> Example:
    # 1. The texts: none is empty, the kind is known, a yes/no answer says yes or no.
    for column in ("id", "image_id", "question", "answer"):
        require(bool((row[column] or "").replace(IMAGE_TAG, "").strip()), column, "is empty")
    require(row["kind"] in KINDS, "kind", f"{row['kind']!r} is not one of {', '.join(KINDS)}")
    if row["kind"] == "exists":
        first = row["answer"].split()[0].strip(",.!").lower()
        problem = f"to an exists question begins with yes or no, not {first!r}"
        require(first in ("yes", "no"), "answer", problem)
    # 2. The pictures: there, inside the data folder, and decodable to their last pixel.
    images = _checked_images(row["images"] or (), folder)
    tags = row["question"].count(IMAGE_TAG)
    problem = f"says {IMAGE_TAG} {tags} times, but the row has {len(images)} pictures"
    require(tags in (0, len(images)), "question", problem)
    # 3. The truth: known names, real boxes, and nothing both present and absent.
    objects, absent = _checked_truth(row, vocabulary)
    texts = {column: row[column] for column in ("id", "image_id", "kind", "question", "answer")}
    texts["question"] = _without_leading_tags(row["question"])
    return Example(**texts, history=(), images=images, objects=objects, absent=absent)


def _checked_truth(
    row: Mapping[str, Any], vocabulary: Vocabulary | None
) -> tuple[tuple[SceneObject, ...] | None, tuple[str, ...] | None]:
    objects, absent = row["objects"], row["absent"]
    if objects is not None:
        objects = tuple(_checked_object(o, vocabulary) for o in objects)
    for name in absent or ():
        is_known = vocabulary is None or name in vocabulary.objects
        require(is_known, "absent", f"{name!r} is not in vocabulary.json")
        is_there = name in {o.name for o in objects or ()}
        require(not is_there, "absent", f"{name!r} is also in objects")
    return objects, None if absent is None else tuple(absent)


def _without_leading_tags(question: str) -> str:
    """Pictures that all stand before the question need no tags, which LLaVA's files have.

    >>> _without_leading_tags("<image>\\nIs it red?"), _without_leading_tags("Like <image>?")
    ('Is it red?', 'Like <image>?')
    """
    rest = re.sub(rf"^(\s*{IMAGE_TAG}\s*)+", "", question)
    return question if IMAGE_TAG in rest else rest


def _checked_object(thing: Mapping[str, Any] | None, vocabulary: Vocabulary | None) -> SceneObject:
    require(thing is not None, "objects", "has an empty entry")
    name, colour, box = thing["name"], thing["colour"] or "", tuple(thing["box"] or ())  # type: ignore[index]
    if vocabulary is not None:
        require(name in vocabulary.objects, "objects", f"{name!r} is not in vocabulary.json")
        is_known = not colour or colour in vocabulary.colours
        require(is_known, "objects", f"colour {colour!r} is not in vocabulary.json")
    subject = f"box of {name!r} {list(box)}"
    require(len(box) == 4 and None not in box, "objects", f"{subject} has not four numbers")
    x0, y0, x1, y1 = box
    is_box = 0 <= x0 < x1 <= 1 and 0 <= y0 < y1 <= 1
    require(is_box, "objects", f"{subject} is not 0 <= x0 < x1 <= 1, same for y")
    return SceneObject(name=name, colour=colour, box=(x0, y0, x1, y1))


def _checked_images(images: Sequence[Mapping[str, Any] | None], folder: Path) -> tuple[bytes, ...]:
    require(bool(images), "images", "has no picture")
    contents = []
    for number, image in enumerate(images):
        where = "image" if len(images) == 1 else f"images[{number}]"
        contents.append(_image_bytes(image, folder, where))
        problem = _decoding_problem(contents[-1])
        require(not problem, where, problem)
    return tuple(contents)


def _image_bytes(image: Mapping[str, Any] | None, folder: Path, where: str) -> bytes:
    if image and image["bytes"]:
        return image["bytes"]
    name = (image or {}).get("path")
    require(bool(name), where, "has neither bytes nor path")
    require("\0" not in str(name), where, "path has a zero byte")
    path = (folder / str(name)).resolve()
    is_inside = path.is_relative_to(folder.resolve())
    require(is_inside, where, f"path {name!r} leads out of the data folder")
    try:
        return path.read_bytes()
    except OSError as error:
        reason = (error.strerror or "not readable").lower()
        raise InputError(f"{where}: path {name!r}: {reason}") from None


@lru_cache(maxsize=16)  # the rows of an image follow each other
def _decoding_problem(image: bytes) -> str:
    """Why Pillow cannot decode every pixel, or ""."""
    try:
        open_picture(image)
    except Image.UnidentifiedImageError:
        return "is not an image file"
    except UNREADABLE as error:
        return f"does not decode ({' '.join(str(error).split()) or type(error).__name__})"
    return ""


def validate_rows(
    rows: Sequence[Mapping[str, Any]], *, file: Path, vocabulary: Vocabulary | None, ids: set[str]
) -> Iterator[Example | RowError]:
    """Each row's `Example`, or the error.

    An id in `ids`, those of the files before, is a duplicate; accepted ids are added to them.
    """
    for number, row in enumerate(rows):
        try:
            example = validate(row, number, file=file, vocabulary=vocabulary)
            if example.id in ids:
                raise RowError(file, number, example.id, "id: occurs before")
        except RowError as error:
            yield error
        else:
            ids.add(example.id)
            yield example
