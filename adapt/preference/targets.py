"""Where attention should lie when an answer names something, as tensors of a batch.

A pair says which characters of its chosen answer mention something and in which boxes that is
(`adapt/pairs/mentioned.py`). Here the characters become the step that produces the first token
of the mention, and the boxes a distribution over the image tokens (`adapt/preference/boxes.py`).

Shapes: B pairs, M mentions, N image tokens of a prompt.
"""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from adapt.attention.layout import layout_by
from adapt.attention.places import places_of
from adapt.models.prompts import Range, located_tokens
from adapt.preference.boxes import box_target

PRODUCERS = "producers"
TARGETS = "targets"


@dataclasses.dataclass(frozen=True, kw_only=True)
class BoxTargets:
    """Makes the targets of a batch.

    Args:
        config: of the model.
        processor: of the model; its tokenizer says where tokens come from.
        ends: the tokens that end an answer.
    """

    config: Any
    processor: Any
    ends: tuple[int, ...]

    def __call__(
        self,
        rows: Sequence[Mapping[str, Any]],
        pictures: Sequence[Sequence[Image.Image]],
        prompts: Mapping[str, Tensor],
    ) -> dict[str, Tensor]:
        """Of the rows' chosen answers, for `adapt.preference.supervision.box_supervision`.

        `producers` [B, M]: the positions that produce the first token of each mention, padded with
        -1. `targets` [B, M, N]: where attention should lie then; 0 where no box is seen.

        Args:
            pictures: of each row.
            prompts: what the processor made of them and the questions, padded on the right. The
                answer follows its prompt without a gap.
        """
        layout, lengths = layout_by(self.config, prompts), prompts["attention_mask"].sum(1).tolist()
        counts = layout.counts_B.tolist()
        _, ranges = located_tokens(self.processor, [row["chosen"] for row in rows], self.ends)
        # Pictures of one size, as most of a data set often are, lie under the tokens alike.
        sizes = [tuple(picture.size for picture in own) for own in pictures]
        lying = {one: places_of(self.config, self.processor, one) for one in {*sizes}}
        producers, targets = [], []
        for i, row in enumerate(rows):
            where = (layout.of(i), lying[sizes[i]], counts[i])
            found = [*_named(row["places"], ranges[i])]
            made = [box_target(place.boxes, place.image, *where) for _, place in found]
            producers.append(torch.tensor([lengths[i] + at - 1 for at, _ in found]).long())
            targets.append(_stacked(made, max(counts)))
        return {
            PRODUCERS: pad_sequence(producers, batch_first=True, padding_value=-1),
            TARGETS: pad_sequence(targets, batch_first=True),
        }


def _stacked(targets: Sequence[Tensor | None], count: int) -> Tensor:
    """[M, N] with 0 behind each target, and in place of one that is missing."""
    stacked = torch.zeros(len(targets), count)
    for row, target in zip(stacked, targets, strict=True):
        if target is not None:
            row[: len(target)] = target
    return stacked


def _named(places: Sequence[Any], ranges: Sequence[Range]) -> Iterator[tuple[int, Any]]:
    """Each place with the first token of its mention, counted from the beginning of the answer.

    A token may have the white space before the mention as well. A mention that left no token, as a
    normalising tokenizer can have it, is passed over; the last token ends the answer.
    """
    for place in places:
        tokens = range(len(ranges) - 1)
        inside = (i for i in tokens if ranges[i][0] < place.end and place.start < ranges[i][1])
        if (first := next(inside, None)) is not None:
            yield first, place
