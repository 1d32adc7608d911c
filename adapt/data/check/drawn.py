"""Some rows of a source with their pictures, small enough to stand in a page."""

import base64
import hashlib
import io
from collections.abc import Sequence
from dataclasses import dataclass

from PIL import ImageDraw

from adapt.data.check.examined import Examined
from adapt.data.importing.checking import Checker
from adapt.data.pictures import open_picture
from adapt.data.schema import Example, Preference, SceneObject

ROWS = 5
SIDE = 288  # pixels of a small picture, at most
MAX_PICTURES = 4  # of a row that are shown
MAX_BYTES = 700_000  # of all small pictures together
MAX_TEXT = 3000  # characters of a text that are shown


@dataclass(frozen=True)
class Shown:
    """A row as the page shows it; texts have their names, and `sides` stand beside each other.

    Pictures are data: addresses.
    """

    place: str
    pictures: list[str]
    rejected_pictures: list[str]
    texts: list[tuple[str, str]]
    sides: list[tuple[str, str]]


def drawn(examined: Examined) -> list[Shown]:
    """A few rows, drawn by a hash of what they say: the same ones in every run."""
    rows = [(hashlib.sha256(row.key).digest(), number) for number, row in examined.accepted()]
    numbers = sorted(number for _, number in sorted(rows)[:ROWS])
    room = MAX_BYTES
    found = []
    for number, record in zip(numbers, _records(examined, numbers), strict=True):
        own, room = _small(record.images, record.objects, room)
        others = record.rejected_images if isinstance(record, Preference) else ()
        rejected, room = _small(others, None, room)
        place = examined.place(number)
        found.append(Shown(place, own, rejected, _texts(record), _sides(record)))
    return found


def _records(examined: Examined, numbers: Sequence[int]) -> list[Example | Preference]:
    """The records of rows, read once more from the source."""
    found, first = [], 0
    with Checker(examined.found.checking) as checker:
        for chunk, verdicts in examined.found.chunks():
            inside = {n - first for n in numbers if first <= n < first + len(verdicts)}
            first += len(verdicts)
            rows = enumerate(examined.found.checking.raw_rows(chunk)) if inside else ()
            found += [checker.record(row, verdicts[n]) for n, row in rows if n in inside]
    return found


def _texts(record: Example | Preference) -> list[tuple[str, str]]:
    """What is known beside the question, and the turns before it."""
    texts = [("kind of question", record.kind)]
    if record.objects is not None:
        names = ", ".join(f"{thing.colour} {thing.name}".strip() for thing in record.objects)
        texts.append(("objects", names or "known to be none"))
    for turn in record.history:
        texts += [("earlier question", turn.question), ("earlier answer", turn.answer)]
    return [(name, _cut(text)) for name, text in texts]


def _sides(record: Example | Preference) -> list[tuple[str, str]]:
    """The question and its answers; a score stands in an answer's name."""
    sides = [("question", _cut(record.question))]
    if isinstance(record, Example):
        return [*sides, ("answer", _cut(record.answer))]
    for name in ("chosen", "rejected"):
        score = getattr(record, f"{name}_score")
        title = name if score is None else f"{name} (score {score:g})"
        sides.append((title, _cut(getattr(record, name))))
    return sides


def _cut(text: str) -> str:
    more = len(text) - MAX_TEXT
    return text if more <= 0 else f"{text[:MAX_TEXT]}... and {more:,} characters more"


def _small(
    pictures: Sequence[bytes], objects: Sequence[SceneObject] | None, room: int
) -> tuple[list[str], int]:
    """data: addresses of small pictures, boxes drawn in the first, and the bytes that are left."""
    found = []
    for number, content in enumerate([*pictures[:MAX_PICTURES]]):
        small = _thumbnail(content, [] if number else [*(objects or ())])
        if len(small) <= room:
            room -= len(small)
            found.append(f"data:image/jpeg;base64,{base64.b64encode(small).decode()}")
    return found, room


def _thumbnail(content: bytes, objects: Sequence[SceneObject]) -> bytes:
    picture = open_picture(content)
    picture.thumbnail((SIDE, SIDE))
    pen, (width, height) = ImageDraw.Draw(picture), picture.size
    for thing in objects:
        if thing.box is not None:
            x0, y0, x1, y1 = thing.box
            last = (width - 1, height - 1)
            corners = (x0 * last[0], y0 * last[1], x1 * last[0], y1 * last[1])
            pen.rectangle(corners, outline=(230, 60, 30))
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=75)
    return buffer.getvalue()
