"""Validation of rows that someone brings: an `Example`, or the first reason why the row cannot be
one.

Every reason names the file, the row (counted from 0, as in `dataset[0]`), its id and the column.
Images are decoded completely, because a truncated one would only be noticed in the middle of a
training run.
"""

import io
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from PIL import Image

from adapt.data.schema import KINDS, Example, SceneObject, Vocabulary
from adapt.params import InputError, require


class RowError(InputError):
    """A row that fails validation: where it is, and why."""

    def __init__(self, file: Path, row: int, row_id: str, reason: str) -> None:
        super().__init__(f"{file}: row {row} (id {row_id or 'missing'}): {reason}")
        self.file, self.row, self.row_id, self.reason = file, row, row_id, reason


def validate(
    row: Mapping[str, Any], row_number: int, *, file: Path, vocabulary: Vocabulary
) -> Example:
    """The row as an `Example`; `RowError` with the first reason why it cannot be one."""
    try:
        return _checked(row, file.parent, vocabulary)
    except InputError as error:
        raise RowError(file, row_number, str(row["id"] or ""), str(error)) from None


def _checked(row: Mapping[str, Any], folder: Path, vocabulary: Vocabulary) -> Example:
    for column in ("id", "image_id", "question", "answer"):
        require(bool((row[column] or "").strip()), column, "is empty")
    require(row["kind"] in KINDS, "kind", f"{row['kind']!r} is not one of {', '.join(KINDS)}")
    if row["kind"] == "exists":
        says = row["answer"].split()[0].strip(",.!").lower()
        require(
            says in ("yes", "no"),
            "answer",
            f"to an exists question begins with yes or no, not {says!r}",
        )
    image = _image_bytes(row["image"], folder)
    problem = _decoding_problem(image)
    require(not problem, "image", problem)
    objects = tuple(_checked_object(o, vocabulary) for o in row["objects"] or ())
    absent = tuple(row["absent"] or ())
    for name in absent:
        require(name in vocabulary.objects, "absent", f"{name!r} is not in vocabulary.json")
        require(name not in {o.name for o in objects}, "absent", f"{name!r} is also in objects")
    texts = {column: row[column] for column in ("id", "image_id", "kind", "question", "answer")}
    return Example(
        **texts, image=image, noisy_answer=row["noisy_answer"] or "", objects=objects, absent=absent
    )


def _checked_object(thing: Mapping[str, Any] | None, vocabulary: Vocabulary) -> SceneObject:
    require(thing is not None, "objects", "has an empty entry")
    name, colour, box = thing["name"], thing["colour"] or "", tuple(thing["box"] or ())  # type: ignore[index]
    require(name in vocabulary.objects, "objects", f"{name!r} is not in vocabulary.json")
    require(
        not colour or colour in vocabulary.colours,
        "objects",
        f"colour {colour!r} is not in vocabulary.json",
    )
    shown = f"box of {name!r} {list(box)}"
    require(len(box) == 4 and None not in box, "objects", f"{shown} has not four numbers")
    x0, y0, x1, y1 = box
    require(
        0 <= x0 < x1 <= 1 and 0 <= y0 < y1 <= 1,
        "objects",
        f"{shown} is not 0 <= x0 < x1 <= 1, same for y",
    )
    return SceneObject(name=name, colour=colour, box=(x0, y0, x1, y1))


def _image_bytes(image: Mapping[str, Any] | None, folder: Path) -> bytes:
    if image and image["bytes"]:
        return image["bytes"]
    name = (image or {}).get("path")
    require(bool(name), "image", "has neither bytes nor path")
    require("\0" not in str(name), "image", "path has a zero byte")
    path = (folder / str(name)).resolve()
    require(
        path.is_relative_to(folder.resolve()),
        "image",
        f"path {name!r} leads out of the data folder",
    )
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(
            f"image: path {name!r}: {(error.strerror or 'not readable').lower()}"
        ) from None


@lru_cache(maxsize=16)  # the rows of an image follow each other
def _decoding_problem(image: bytes) -> str:
    """Why Pillow cannot decode every pixel, or ""."""
    try:
        Image.open(io.BytesIO(image)).load()
    except Image.UnidentifiedImageError:
        return "is not an image file"
    except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError) as error:
        return f"does not decode ({' '.join(str(error).split()) or type(error).__name__})"
    return ""


def validate_rows(
    rows: Sequence[Mapping[str, Any]], *, file: Path, vocabulary: Vocabulary, seen: set[str]
) -> Iterator[Example | RowError]:
    """Each row's `Example`, or the error; an id in `seen` is a duplicate, and accepted ids are
    added to it.
    """
    for number, row in enumerate(rows):
        try:
            example = validate(row, number, file=file, vocabulary=vocabulary)
            if example.id in seen:
                raise RowError(file, number, example.id, "id: occurs before")
        except RowError as error:
            yield error
        else:
            seen.add(example.id)
            yield example
