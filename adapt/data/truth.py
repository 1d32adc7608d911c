"""What is truly in the pictures of a foreign row: names and boxes, or that nobody knows.

Boxes are boxes of the upright picture, in 0..1 or in its pixels: that is what people who draw them
see, and what every stage sees.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from adapt.data.schema import SceneObject, Vocabulary
from adapt.params import require, shown

MAX_OBJECTS = 1000
MAX_NAME = 100
SLACK = 0.5
"""Pixels that a box may stand out of its picture: annotations are rounded, also outwards."""

_NAME = re.compile(r"[^\W_]+([ '\u2019_/&.-]{1,2}[^\W_]+)*")

_FAR = 1e9  # an integer may be too large for a float

Size = tuple[int, int]  # width, height in pixels


def truth(
    raw: Mapping[str, Any], sizes: Sequence[Size], vocabulary: Vocabulary | None
) -> dict[str, Any]:
    """`objects` and `absent` of the row, whose pictures have these sizes; None: not known."""
    objects, absent = raw.get("objects"), raw.get("absent")
    for column, found in (("objects", objects), ("absent", absent)):
        is_list = found is None or isinstance(found, list | tuple)
        require(is_list, column, f"expected a list, got {shown(found)}")
        require(len(found or ()) <= MAX_OBJECTS, column, f"has more than {MAX_OBJECTS} entries")
    if objects is not None:
        objects = tuple(_object(thing, sizes, vocabulary) for thing in objects)
    if absent is not None:
        absent = tuple(_name(name, "absent", vocabulary) for name in absent)
    both = {thing.name for thing in objects or ()} & set(absent or ())
    require(not both, "absent", f"{shown(min(both, default=''))} is also in objects")
    return {"objects": objects, "absent": absent}


def _name(name: Any, column: str, vocabulary: Vocabulary | None) -> str:
    if vocabulary is not None:
        is_known = isinstance(name, str) and name in vocabulary.objects
        require(is_known, column, f"{shown(name)} is not in vocabulary.json")
    else:
        is_words = isinstance(name, str) and len(name) <= MAX_NAME and name == name.lower()
        is_words = is_words and bool(_NAME.fullmatch(name))
        require(is_words, column, f"{shown(name)} is not a lower-case word")
    return str(name)


def _object(thing: Any, sizes: Sequence[Size], vocabulary: Vocabulary | None) -> SceneObject:
    require(isinstance(thing, Mapping), "objects", f"expected an object, got {shown(thing)}")
    name = _name(thing.get("name"), "objects", vocabulary)
    colour = thing.get("colour") or ""
    require(isinstance(colour, str), "objects", f"colour {shown(colour)} is no text")
    if vocabulary is not None and colour:
        is_known = colour in vocabulary.colours
        require(is_known, "objects", f"colour {shown(colour)} is not in vocabulary.json")
    number = thing.get("picture") or 0
    is_picture = isinstance(number, int) and 0 <= number < len(sizes)
    require(is_picture, "objects", f"{shown(number)} is not the number of a picture of the row")
    box = _box(thing, name, sizes[number])
    return SceneObject(name=name, colour=colour, box=box if number == 0 else None)


def _box(
    thing: Mapping[str, Any], name: str, size: Size
) -> tuple[float, float, float, float] | None:
    """The box in 0..1 of the upright picture of `size` pixels (width, height)."""
    if (found := thing.get("box")) is None:
        return None
    subject = f"box of {shown(name)} {shown(found)}"
    is_four = isinstance(found, list | tuple) and len(found) == 4
    is_four = is_four and all(isinstance(v, int | float) and not isinstance(v, bool) for v in found)
    require(is_four, "objects", f"{subject} has not four numbers")
    values = [float(min(max(value, -_FAR), _FAR)) for value in found]
    if thing.get("unit") == "pixels":
        values = [_share(value, size[i % 2]) for i, value in enumerate(values)]
    x0, y0, x1, y1 = values
    is_box = 0 <= x0 < x1 <= 1 and 0 <= y0 < y1 <= 1
    is_pixels = thing.get("unit") == "pixels"
    expected = (
        f"inside {size[0]} x {size[1]} pixels" if is_pixels else "0 <= x0 < x1 <= 1, same for y"
    )
    require(is_box, "objects", f"{subject} is not {expected}")
    return x0, y0, x1, y1


def _share(pixels: float, length: int) -> float:
    if -SLACK <= pixels < 0:
        return 0.0
    return 1.0 if length < pixels <= length + SLACK else pixels / length
