"""What the pairs stage works out for a row: the visual anchor, twice, and what was sampled.

The anchor is kept over the tokens of this model, and as a map over each picture.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any, Literal

from torch import Tensor

from adapt.attention.layout import View
from adapt.attention.places import places_of
from adapt.attention.support import support_maps
from adapt.data.schema import Example, Preference, Vocabulary
from adapt.pairs.deciding import by_truth, by_words
from adapt.pairs.mentioned import mentioned
from adapt.pairs.table import Pair, PairView


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
    prefix: str = ""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Found:
    """What was worked out for a row; `answers` are the model's own, None for given ones."""

    annotation: Annotation
    answers: Answers | None = None


Reason = Literal["min_gap", "chosen", "unit", "repeats", "min_best", "likelihood"]
"""The key of `pairs` that a row has no pair by."""


@dataclasses.dataclass(frozen=True)
class LeftOut:
    """That a row has no pair, and why."""

    reason: Reason


Outcome = Found | LeftOut


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


def sampled_pair(row: Example, found: Found, identity: str, vocabulary: Vocabulary | None) -> Pair:
    """The pair of a question and the model's own answers to it.

    `vocabulary`: the words that mean things, for what decides and where the things are.
    """
    assert found.answers is not None, "a sampled pair has answers of its own"
    answers = found.answers
    good, bad = by_truth(answers.chosen, answers.rejected, row, vocabulary)
    parts: dict[str, Any] = {"chosen_spans": good, "rejected_spans": bad}
    parts["places"] = mentioned(answers.chosen, row.objects, vocabulary)
    fields = {**_asked(row), **vars(answers), **vars(found.annotation), **parts}
    return Pair(id=identity, source="sampled", **fields)


def given_pair(
    row: Preference, found: Found, vocabulary: Vocabulary | None, prefix: str = ""
) -> Pair:
    """The pair of a question and the answers that came with it; `vocabulary` as above."""
    names = ("id", "chosen", "rejected", "chosen_score", "rejected_score")
    fields: dict[str, Any] = {name: getattr(row, name) for name in names}
    fields["rejected_images"] = tuple(row.rejected_images)
    fields["places"] = mentioned(row.chosen, row.objects, vocabulary)
    fields["chosen_spans"], fields["rejected_spans"] = by_words(row.chosen, row.rejected)
    return Pair(source="given", prefix=prefix, **fields, **_asked(row), **vars(found.annotation))


def _asked(row: Example | Preference) -> dict[str, Any]:
    names = ("kind", "history", "question")
    return {"images": tuple(row.images), **{name: getattr(row, name) for name in names}}
