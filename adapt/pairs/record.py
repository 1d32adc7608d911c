"""A preference pair with its visual anchor, and what a row of a file must be to be one."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args

import numpy as np

from adapt.attention.grids import Grid, Kind
from adapt.attention.layout import View
from adapt.attention.support import SIDE
from adapt.data.schema import Turn
from adapt.params import require

PairSource = Literal["given", "sampled"]
Span = tuple[int, int]
"""Characters [start, end) of a text."""
Box = tuple[float, float, float, float]
"""x0, y0, x1, y1 in 0..1 of a picture."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class PairView:
    """One grid of patches among the image tokens of a prompt; `image` counts pictures from 0."""

    image: int
    kind: Kind
    rows: int
    columns: int

    @classmethod
    def of(cls, view: View) -> "PairView":
        """What is kept of a view."""
        return cls(image=view.image, kind=view.kind, rows=view.grid[0], columns=view.grid[1])

    @property
    def grid(self) -> Grid:
        """(rows, columns)."""
        return self.rows, self.columns


@dataclasses.dataclass(frozen=True, kw_only=True)
class PairPlace:
    """A mention in the chosen answer, its characters [start, end), and where its things are.

    `image` counts pictures from 0; no boxes: what is mentioned is nowhere.
    """

    start: int
    end: int
    image: int
    boxes: tuple[Box, ...]

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> "PairPlace":
        """From the values of a file, in which boxes are lists."""
        return cls(**{**values, "boxes": tuple(map(tuple, values["boxes"]))})


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pair:
    """One preference: two answers to a question about pictures, and where these support them.

    `anchor` is the visual anchor over all image tokens of the prompt (sum 1), 0 at separators;
    `views` are the grids among these tokens, in order. `support` is the anchor over each picture,
    SIDE x SIDE bytes, row by row. `history` are earlier turns; `rejected_images` what the rejected
    answer is seen with, () for the same pictures. A score is None where nobody gave one. `source`
    says whether the answers were given or are the model's own.

    `prefix` is what both answers begin with and are not trained on. `chosen_spans` and
    `rejected_spans` are the characters of each answer that decide the preference, in order and
    apart; `places` say where the things that the chosen answer mentions are.
    """

    id: str
    kind: str
    images: tuple[bytes, ...]
    question: str
    chosen: str
    rejected: str
    chosen_score: float | None
    rejected_score: float | None
    anchor: tuple[float, ...]
    views: tuple[PairView, ...]
    support: tuple[bytes, ...]
    history: tuple[Turn, ...] = ()
    rejected_images: tuple[bytes, ...] = ()
    source: PairSource = "sampled"
    prefix: str = ""
    chosen_spans: tuple[Span, ...] = ()
    rejected_spans: tuple[Span, ...] = ()
    places: tuple[PairPlace, ...] = ()

    def size(self) -> int:
        """About how many bytes of a file it takes."""
        pictures = (*self.images, *self.rejected_images, *self.support)
        return sum(map(len, pictures)) + 4 * len(self.anchor)


_SCORES = ("chosen_score", "rejected_score")


def checked(where: str, row: dict[str, Any]) -> Pair:
    """The row of a file as a pair; InputError that names the row for one that is none.

    Each check says what the next one may take for granted.
    """
    for key, value in row.items():
        require(value is not None or key in _SCORES, where, f"no {key}")
    for key in ("id", "images", "question", "chosen", "rejected", "anchor", "views"):
        require(bool(row[key]), where, f"no {key}")
    for key in ("images", "rejected_images"):
        require(all(row[key]), where, f"{key}: one has no bytes")
    own, others = len(row["images"]), len(row["rejected_images"])
    problem = f"{others}, but the chosen answer is about {own}"
    require(others in (0, own), where, f"rejected_images: {problem}")
    for key in _SCORES:
        require(row[key] is None or math.isfinite(row[key]), where, f"{key}: {row[key]}")
    is_source = row["source"] in get_args(PairSource)
    require(is_source, where, f"source: {row['source']!r} is not given or sampled")
    is_turn = all(turn and turn["question"] and turn["answer"] for turn in row["history"])
    require(is_turn, where, "history: a turn without its question or its answer")
    _check_anchor(where, row)
    _check_parts(where, row)
    fields = {key: tuple(row[key]) for key in ("images", "rejected_images", "anchor", "support")}
    fields |= {key: tuple(map(tuple, row[key])) for key in ("chosen_spans", "rejected_spans")}
    fields |= {
        "views": tuple(PairView(**view) for view in row["views"]),
        "history": tuple(Turn(**turn) for turn in row["history"]),
        "places": tuple(map(PairPlace.of, row["places"])),
    }
    return Pair(**row | fields)


def _check_parts(where: str, row: Mapping[str, Any]) -> None:
    """That prefix, spans and places are parts of the answers."""
    for side in ("chosen", "rejected"):
        begins = row[side].startswith(row["prefix"])
        require(begins, where, f"prefix: the {side} answer does not begin with it")
        spans, length, last = row[f"{side}_spans"], len(row[side]), 0
        for span in spans:
            problem = f"{span} is no part of {length} characters, behind the one before"
            require(_is_span(span, last, length), where, f"{side}_spans: {problem}")
            last = span[1]
    for place in row["places"]:
        problem = f"places: {place} is none"
        require(place is not None, where, problem)
        is_span = _is_span((place["start"], place["end"]), 0, len(row["chosen"]))
        image, boxes = place["image"], place["boxes"]
        is_image = image is not None and 0 <= image < len(row["images"])
        is_place = is_span and is_image and boxes is not None and all(map(_is_box, boxes))
        require(is_place, where, f"{problem}; a box is x0 < x1, y0 < y1 in 0..1")


def _is_span(span: Sequence[Any] | None, low: int, high: int) -> bool:
    return span is not None and None not in span and low <= span[0] < span[1] <= high


def _is_box(box: Sequence[Any] | None) -> bool:
    if box is None or None in box:
        return False
    x0, y0, x1, y1 = box
    return 0 <= x0 < x1 <= 1 and 0 <= y0 < y1 <= 1


def _check_anchor(where: str, row: Mapping[str, Any]) -> None:
    """That anchor, views and maps belong to each other and to the pictures."""
    values, pictures = row["anchor"], len(row["images"])
    weights = np.array(values, np.float64)  # None becomes NaN
    is_weight = bool(((weights >= 0) & (weights < math.inf)).all())
    require(is_weight, where, "anchor: a value is negative or not finite")
    patches = 0
    for view in row["views"]:
        is_view = view is not None and view["kind"] in get_args(Kind)
        is_view = is_view and all(
            view[key] is not None and view[key] >= low
            for key, low in (("image", 0), ("rows", 1), ("columns", 1))
        )
        require(is_view, where, f"views: {view} is none")
        patches += view["rows"] * view["columns"]
    problem = f"{len(values)} values, but its views have {patches} patches"
    require(patches <= len(values), where, f"anchor: {problem}")
    sizes = [0 if one is None else len(one) for one in row["support"]]
    expected = f"{pictures} maps of {SIDE**2} bytes, one for each picture"
    require(sizes == [SIDE**2] * pictures, where, f"support: expected {expected}, got {sizes}")
