"""Validation of rows that someone brings: an `Example`, a `Preference`, or the reason against it.

Every reason names the file, the row (counted from 1), its id and the column; whatever it repeats of
the row is escaped and cut. What is refused, by column:

    id, image_id      not printable, with a slash, "." or "..", longer than 200 bytes: it becomes
                      the name of files. Missing ones are made of the content, so that they stay.
    texts             missing, blank, no text, control characters, more than `MAX_TEXT` characters;
                      ends of lines become \\n, a byte order mark goes
    question          another number of `<image>` tags than pictures (none is fine)
    answers           an `<image>` tag; equal ones about the same pictures
    images            none, more than `MAX_PICTURES`, not found or outside the source, an address,
                      and what `pictures.normalised` refuses
    scores            no number, infinite; NaN is "not given"
    objects, absent   names that are not lower-case words or not in the vocabulary, one
                      name in both; a box that is not x0 < x1, y0 < y1 inside the picture

Pictures are stored upright. Boxes are boxes of the upright picture: that is what people who draw
them see, and what every stage sees.
"""

import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from adapt.data.columns import Kind
from adapt.data.kinds import kind_of
from adapt.data.pictures import Stored, normalised
from adapt.data.readers.record import OutOfReach
from adapt.data.schema import KINDS, Example, Preference, Vocabulary
from adapt.data.texts import MAX_ID, answer, dialogue, identifier, untagged
from adapt.data.truth import truth
from adapt.params import InputError, plain, require, shown

MAX_PICTURES = 16
MAX_REASON = 300
ID_LENGTH = 16  # hexadecimal digits of an id that is made of the content

Raw = Mapping[str, Any]
Reads = Callable[[str], bytes]
Stores = Callable[[bytes], Stored]


class RowError(InputError):
    """A row that fails validation: where it is, and why."""

    def __init__(self, file: str | Path, row: int, row_id: str, reason: str) -> None:
        row_id, reason = _cut(row_id, MAX_ID), _cut(reason, MAX_REASON)
        super().__init__(f"{plain(str(file))}: row {row} (id {row_id or 'missing'}): {reason}")
        self.file, self.row, self.row_id, self.reason = file, row, row_id, reason

    @property
    def column(self) -> str:
        """The column that the reason is about, or ""."""
        head, colon, _ = self.reason.partition(":")
        return head if colon and " " not in head else ""

    def __reduce__(self) -> tuple[type["RowError"], tuple[str | Path, int, str, str]]:
        """Workers send their errors to the parent."""
        return RowError, (self.file, self.row, self.row_id, self.reason)


def checked(
    raw: Raw,
    *,
    file: str,
    row: int,
    kind: Kind,
    picture: Reads,
    vocabulary: Vocabulary | None = None,
    stored: Stores = normalised,
) -> Example | Preference | RowError:
    """The raw row of a format (`formats/raw.py`) as a record, or the first reason against it.

    `picture` reads a picture by the name that the row has (`Source.picture`); `stored` is
    `pictures.normalised` or a function that keeps what it has given.
    """
    try:
        return _record(raw, kind, picture, vocabulary, stored)
    except OutOfReach:  # no fault of the row
        raise
    except InputError as error:
        found = raw.get("id")
        is_plain = isinstance(found, str | int | float) and not isinstance(found, bool)
        return RowError(file, row, str(found)[:MAX_ID] if is_plain else "", str(error))


def _record(
    raw: Raw, kind: Kind, picture: Reads, vocabulary: Vocabulary | None, stored: Stores
) -> Example | Preference:
    # 1. What is cheap to check: ids and texts.
    ids = {column: identifier(raw.get(column), column) for column in ("id", "image_id")}
    history, question = dialogue(raw)
    answers = [answer(raw, name) for name in _ANSWERS[kind]]
    # 2. The pictures: there, inside the source, and decodable to their last pixel.
    images = _pictures(raw.get("images"), "image", picture, stored)
    others = _pictures(raw.get("rejected_images"), "rejected_image", picture, stored)
    others = () if _digests(others) == _digests(images) else others
    require(bool(images), "images", "has no picture; rows of text alone are not read")
    is_pair = not others or len(others) == len(images)
    require(is_pair, "rejected_images", f"has {len(others)} pictures, images {len(images)}")
    history, question = untagged(history, question, len(images))
    # 3. The truth: real boxes, and nothing both present and absent.
    known = truth(raw, [one.size for one in images], vocabulary)
    # 4. What is made of the content where the row does not say it.
    turns, seen = [[turn.question, turn.answer] for turn in history], _digests(images)
    shared: dict[str, Any] = {
        "id": ids["id"] or _made([turns, question, answers, seen, _digests(others)]),
        "image_id": ids["image_id"] or _made(seen),
        "images": tuple(one.content for one in images),
        "kind": _kind(raw, question, answers[0]),
        "history": history,
        "question": question,
        **known,
    }
    if kind == "evaluation":
        return Example(answer=answers[0], **shared)
    is_same = answers[0].strip() == answers[1].strip() and not others
    require(not is_same, "rejected", "is the same as chosen")
    return Preference(
        chosen=answers[0],
        rejected=answers[1],
        rejected_images=tuple(one.content for one in others),
        chosen_score=_score(raw.get("chosen_score"), "chosen_score"),
        rejected_score=_score(raw.get("rejected_score"), "rejected_score"),
        **shared,
    )


_ANSWERS: dict[Kind, tuple[str, ...]] = {
    "evaluation": ("answer",),
    "preference": ("chosen", "rejected"),
}


def _kind(raw: Raw, question: str, answer: str) -> str:
    kind = raw.get("kind")
    if kind is None or kind == "":
        return kind_of(question, answer)
    require(kind in KINDS, "kind", f"{shown(kind)} is not one of {', '.join(KINDS)}")
    if kind == "exists":
        first = answer.split()[0].strip(",.!").lower()
        problem = f"to an exists question begins with yes or no, not {shown(first)}"
        require(first in ("yes", "no"), "answer", problem)
    return str(kind)


def _score(found: Any, column: str) -> float | None:
    if found is None or found == "":
        return None
    try:
        score = float("no" if isinstance(found, bool) else found)
    except (TypeError, ValueError, OverflowError):
        raise InputError(f"{column}: expected a number, got {shown(found)}") from None
    require(not math.isinf(score), column, "is infinite")
    return None if math.isnan(score) else score


def _cut(text: str, limit: int) -> str:
    text = plain(text[: limit + 1])
    return text if len(text) <= limit else f"{text[:limit]}..."


# ---- pictures -----------------------------------------------------------------------------------


def _pictures(found: Any, column: str, picture: Reads, stored: Stores) -> tuple[Stored, ...]:
    found = () if found is None else found
    if not isinstance(found, list | tuple):  # whose bytes are shown only then
        raise InputError(f"{column}s: expected a list, got {shown(found)}")
    require(len(found) <= MAX_PICTURES, f"{column}s", f"has more than {MAX_PICTURES} pictures")
    where = [column] if len(found) == 1 else [f"{column}s[{n}]" for n in range(len(found))]
    return tuple(_stored(one, at, picture, stored) for one, at in zip(found, where, strict=True))


def _stored(one: Any, where: str, picture: Reads, stored: Stores) -> Stored:
    one = one if isinstance(one, Mapping) else {}
    content, path = one.get("bytes"), one.get("path")
    require(content is None or isinstance(content, bytes), where, "expected bytes")
    is_named = not content and bool(path)  # some files have empty bytes beside a path
    require(is_named or content is not None, where, "has neither bytes nor path")
    try:
        return stored(_read(path, where, picture) if is_named else content)
    except OutOfReach:
        raise
    except InputError as error:
        text = str(error)
        raise InputError(text if text.startswith(f"{where}: ") else f"{where}: {text}") from None


def _read(path: Any, where: str, picture: Reads) -> bytes:
    """The first of the places that a format names; the reason is that against the last one."""
    places = path if isinstance(path, list | tuple) else [path]
    require(all(isinstance(p, str) for p in places), where, "expected a path that is a text")
    for place in places[:-1]:
        try:
            return picture(place)
        except OutOfReach:
            raise
        except InputError:
            continue
    return picture(places[-1])


def _digests(pictures: Sequence[Stored]) -> list[str]:
    return [one.digest for one in pictures]


def _made(content: Any) -> str:
    """An id that depends on the content alone, so that added rows change no other row's."""
    text = json.dumps(content, ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8")).hexdigest()[:ID_LENGTH]
