"""Reasons against rows, put into groups: what differs between rows of one fault is left out."""

import re
from collections.abc import Callable, Mapping
from typing import Any

_QUOTED = re.compile(r"'(?:[^'\\]|\\.)*'(?:\.\.\.)?|\"(?:[^\"\\]|\\.)*\"(?:\.\.\.)?")
_PLACE = re.compile(r"[^\s(]\S*: row \d+")
_NUMBER = re.compile(r"\d[\d,.]*\d|\d")
_NAMED = re.compile(r"^(image_id) \S+(?=:)")


def kind_of_reason(reason: str) -> str:
    """The reason without what it quotes.

    >>> kind_of_reason("image: 'a.jpg' not found"), kind_of_reason("is the same as a.json: row 3")
    ('image: … not found', 'is the same as another row')
    """
    general = _PLACE.sub("another row", _NAMED.sub(r"\1", _QUOTED.sub("…", reason)))
    return _NUMBER.sub("N", general)


def grouped(reasons: Mapping[int, str], place: Callable[[int], str]) -> list[dict[str, Any]]:
    """The kinds of reasons with their counts and the first place of each, most frequent first."""
    groups: dict[str, dict[str, Any]] = {}
    for number, reason in reasons.items():
        kind = kind_of_reason(reason)
        first = {"reason": kind, "count": 0, "example": f"{place(number)}: {reason}"}
        groups.setdefault(kind, first)["count"] += 1
    return sorted(groups.values(), key=lambda group: -group["count"])
