"""What the pairs stage works out for a row: the visual anchor, twice, and what was sampled.

The anchor is kept over the tokens of this model, and as a map over each picture.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

from torch import Tensor

from adapt.attention.layout import View
from adapt.attention.places import places_of
from adapt.attention.support import support_maps
from adapt.data.schema import Example, Preference
from adapt.preference.pairs import Pair, PairView


@dataclasses.dataclass(frozen=True, kw_only=True)
class Annotation:
    """The fields of a `Pair` that say where its pictures support an answer."""

    anchor: tuple[float, ...]
    views: tuple[PairView, ...]
    support: tuple[bytes, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Answers:
    """The fields of a `Pair` that say what to prefer to what."""

    chosen: str
    rejected: str
    chosen_score: float | None
    rejected_score: float | None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Found:
    """What was worked out for a row; `answers` are the model's own, None for given ones."""

    annotation: Annotation
    answers: Answers | None = None


def annotation(
    model: Any,
    processor: Any,
    anchor_N: Tensor,
    views: Sequence[View],
    sizes: Sequence[tuple[int, int]],
) -> Annotation:
    """The anchor over all image tokens of a prompt, whose pictures have these (width, height)."""
    maps = support_maps(anchor_N, views, places_of(model.config, processor, sizes))
    return Annotation(
        anchor=tuple(anchor_N.tolist()),
        views=tuple(PairView.of(view) for view in views),
        support=tuple(one.tobytes() for one in maps),
    )


def sampled_pair(row: Example, found: Found, identity: str) -> Pair:
    """The pair of a question and the model's own answers to it."""
    assert found.answers is not None, "a sampled pair has answers of its own"
    answers = vars(found.answers)
    return Pair(id=identity, source="sampled", **_asked(row), **answers, **vars(found.annotation))


def given_pair(row: Preference, found: Found) -> Pair:
    """The pair of a question and the answers that came with it."""
    names = ("id", "chosen", "rejected", "chosen_score", "rejected_score")
    fields: dict[str, Any] = {name: getattr(row, name) for name in names}
    fields["rejected_images"] = tuple(row.rejected_images)
    return Pair(source="given", **fields, **_asked(row), **vars(found.annotation))


def _asked(row: Example | Preference) -> dict[str, Any]:
    names = ("kind", "history", "question")
    return {"images": tuple(row.images), **{name: getattr(row, name) for name in names}}
