"""Texts of foreign rows: ids that may name files, sentences, and the tags of pictures in them."""

import math
import re
from collections.abc import Mapping
from typing import Any

from adapt.data.schema import IMAGE_TAG, Turn
from adapt.params import InputError, require, shown

MAX_TEXT = 100_000
"""Characters of a text; the longest published answers have some ten thousand."""
MAX_ID = 200
"""Bytes of an id, so that it fits into the name of a file with an ending."""
MAX_TURNS = 64
VIDEO_TAG = "<video>"

_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]")


def identifier(found: Any, column: str) -> str:
    """An id as text, "" where there is none; what may become the name of a file.

    >>> identifier(12.0, "id"), identifier(" a-0 ", "id"), identifier(None, "id")
    ('12', 'a-0', '')
    """
    if isinstance(found, float) and found.is_integer():
        found = int(found)  # what pandas makes of whole numbers with a gap among them
    if found is None or found == "" or (isinstance(found, float) and math.isnan(found)):
        return ""
    is_kind = isinstance(found, str | int) and not isinstance(found, bool)
    require(is_kind, column, f"expected a text or a whole number, got {shown(found)}")
    name = str(found).strip()
    is_name = "/" not in name and "\\" not in name and name not in (".", "..")
    require(is_name, column, f"{shown(name)} is a path; an id becomes the name of a file")
    require(name.isprintable(), column, f"{shown(name)} has a character that cannot be printed")
    require(bool(name), column, "is blank")
    length = len(name.encode("utf-8"))
    require(length <= MAX_ID, column, f"{shown(name)} has {length} bytes, more than {MAX_ID}")
    return name


def said(found: Any, column: str) -> str:
    """A text that is there, clean, and of a length that somebody may have written.

    >>> said("\\ufeffa dog\\r\\nand a cat", "answer")
    'a dog\\nand a cat'
    """
    is_gap = found is None or (isinstance(found, float) and math.isnan(found))
    require(not is_gap, column, "is empty")
    require(isinstance(found, str), column, f"expected a text, got {shown(found)}")
    require(len(found) <= MAX_TEXT, column, f"has more than {MAX_TEXT:,} characters")
    text: str = found.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")
    if odd := _CONTROL.search(text):
        code, at = ord(odd[0]), odd.start() + 1
        hint = " (saved in one encoding, read in another?)" if code > 0x7F else ""
        raise InputError(f"{column}: has the control character U+{code:04X} at {at}{hint}")
    require(not _is_blank(text.replace(IMAGE_TAG, "")), column, "is empty")
    require(VIDEO_TAG not in text, column, f"says {VIDEO_TAG}; only pictures are read")
    return text


def _is_blank(text: str) -> bool:
    """Nothing that anybody could see, such as spaces without width."""
    return not any(letter.isprintable() and not letter.isspace() for letter in text)


def answer(raw: Mapping[str, Any], column: str) -> str:
    """An answer of the row, which names no place of a picture."""
    text = said(raw.get(column), column)
    require(IMAGE_TAG not in text, column, f"says {IMAGE_TAG}, the place of a picture")
    return text


def dialogue(raw: Mapping[str, Any]) -> tuple[tuple[Turn, ...], str]:
    """The earlier turns of the row, and its question; questions lose the blanks around them."""
    turns = raw.get("history")
    turns = () if turns is None else turns
    require(isinstance(turns, list | tuple), "history", f"expected a list, got {shown(turns)}")
    require(len(turns) <= MAX_TURNS, "history", f"has more than {MAX_TURNS} turns")
    return tuple(map(_turn, turns)), said(raw.get("question"), "question").strip()


def _turn(turn: Any) -> Turn:
    is_turn = isinstance(turn, Mapping) and {"question", "answer"} <= set(turn)
    require(is_turn, "history", f"expected turns with question and answer, got {shown(turn)}")
    reply = said(turn["answer"], "history")
    require(IMAGE_TAG not in reply, "history", f"an answer says {IMAGE_TAG}")
    return Turn(question=said(turn["question"], "history").strip(), answer=reply)


def untagged(
    history: tuple[Turn, ...], question: str, pictures: int
) -> tuple[tuple[Turn, ...], str]:
    """Pictures that all stand before the dialogue need no tags, which LLaVA's files have."""
    asked = [*(turn.question for turn in history), question]
    tags = sum(text.count(IMAGE_TAG) for text in asked)
    problem = f"says {IMAGE_TAG} {tags} times, but the row has {pictures} pictures"
    require(tags in (0, pictures), "question", problem)
    first = without_leading_tags(asked[0])
    if not tags or asked[0].count(IMAGE_TAG) < tags or first == asked[0]:
        return history, question
    if not history:
        return (), first
    return (Turn(question=first, answer=history[0].answer), *history[1:]), question


def without_leading_tags(question: str) -> str:
    """The question without its tags if all of them lead it.

    >>> without_leading_tags("<image>\\nIs it red?"), without_leading_tags("Like <image>?")
    ('Is it red?', 'Like <image>?')
    """
    rest = re.sub(rf"^(\s*{IMAGE_TAG}\s*)+", "", question)
    return question if IMAGE_TAG in rest else rest
