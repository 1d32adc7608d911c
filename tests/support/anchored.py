"""The visual anchor of each answer that was generated: what given answers are compared with."""

from collections.abc import Mapping

from torch import Tensor

from adapt.attention.anchor import anchors, by_grid
from adapt.attention.grids import Grid
from adapt.generation.answer import Answers, first_maps


def answer_anchors(
    answers: Answers, anchor_tokens: int, debias: Mapping[Grid, Tensor] | None
) -> Tensor:
    """The visual anchor of each answer, whatever the grids of its image, [B, N]."""
    patches = by_grid(answers.layout, answers.samples)
    return anchors(first_maps(answers, anchor_tokens), patches, debias)
