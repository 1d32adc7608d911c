"""Ids, as files of answers and files of truth spell them.

COCO's image 42 is also `COCO_val2014_000000000042.jpg`, `000000000042`, `val2014/000000000042.jpg`
and, out of a table, `42.0`; AMBER's 1 is `AMBER_1.jpg`. A spelling is taken for an id only where
the truth lists that id, or a picture of that name, and no other that fits.
"""

import re
from collections.abc import Iterable
from decimal import Decimal
from typing import Any

_EXACT = 2**53  # beyond, floats skip whole numbers
_WHOLE = re.compile(r"([+-]?\d{1,16})\.0+")
_PICTURE = re.compile(r"\.(?:jpe?g|png|webp|bmp|gif|tiff?)$", re.IGNORECASE)
_NUMBER = re.compile(r"(?:COCO_[a-z]+\d{4}_(?=\d{12}$))?(\d{1,18})")


def id_of(value: Any) -> str | None:
    """An id as text, None for what is no id.

    >>> [id_of(value) for value in (7, "7", 7.0, "7.0", 7.5, 1e308, True, " a.jpg ")]
    ['7', '7', '7', '7', None, None, None, 'a.jpg']
    """
    if isinstance(value, float | Decimal) and -_EXACT <= value <= _EXACT and value == int(value):
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int | str):
        return None
    text = str(value).strip()
    # What pandas makes of integers beside a gap, and so writes into a table.
    whole = _WHOLE.fullmatch(text)
    return (str(int(whole[1])) if whole else text) or None


class Ids:
    """The ids that a truth lists, and the names of their pictures."""

    def __init__(self, known: Iterable[str], pictures: Iterable[tuple[str, str]] = ()) -> None:
        """`pictures` are pairs of a file's name and the id that it belongs to."""
        self.known: set[str] = set()
        self._exact: dict[str, set[str]] = {}
        self._alike: dict[str, set[str]] = {}
        self.add_known(known)
        self.add(pictures)

    def add_known(self, known: Iterable[str]) -> None:
        """More ids that the truth lists."""
        for key in set(known) - self.known:
            self._alike.setdefault(plain(key), set()).add(key)
            self.known.add(key)

    def add(self, pictures: Iterable[tuple[str, str]]) -> None:
        """More names of pictures."""
        for name, key in pictures:
            self._exact.setdefault(name, set()).add(key)
            self._alike.setdefault(plain(name), set()).add(key)

    def meant(self, spellings: Iterable[str] | None) -> set[str]:
        """All ids that any of the spellings may mean; every known one for None."""
        if spellings is None:
            return self.known
        return {key for spelling in spellings for key in self.find(spelling)}

    def find(self, spelling: str) -> set[str]:
        """The ids that may be meant: itself, or a picture's of this name, or all that are alike.

        >>> ids = Ids(["42", "7"], [("COCO_val2014_000000000042.jpg", "42"), ("9.jpg", "7")])
        >>> [ids.find(name) for name in ("000000000042.jpg", "val2014/9.jpg", "9", "43")]
        [{'42'}, {'7'}, {'7'}, set()]
        """
        if spelling in self.known:
            return {spelling}
        return self._exact.get(spelling, set()) or self._alike.get(plain(spelling), set())


def plain(spelling: str) -> str:
    """An id without folders, without the ending of a picture, and a number without its zeros."""
    name = _PICTURE.sub("", re.split(r"[/\\]", id_of(spelling) or "")[-1])
    number = _NUMBER.fullmatch(name)
    return str(int(number[1])) if number else name
