"""Where to look: supervision of a question's noun by the boxes, for the embedded default model.

A question names a thing: its noun should find the patches of that thing, and should find nothing
where the thing is absent. Without this, the tiny model needs many thousand steps before a noun
looks anything up: after 800 it answers every "is there" with yes and guesses colours.

Shapes: B batch, L layers, N = side * side image tokens.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from adapt.attention.signals import EPS
from adapt.data.schema import Example, Vocabulary
from adapt.metrics.mentions import find


@dataclasses.dataclass(frozen=True, kw_only=True)
class Place:
    """The token of a question's noun (-1: none is named), and where it should look.

    `patches_N` are the patches of that thing, none where it is absent.
    """

    token: int
    patches_N: Tensor


def patches_of(box: Sequence[float], side: int) -> Tensor:
    """Patches of a side x side grid with their centre in the box (x0, y0, x1, y1 in 0..1), bool.

    >>> patches_of((0.0, 0.0, 1.0, 0.5), 2)
    tensor([ True,  True, False, False])
    """
    centre = (torch.arange(side) + 0.5) / side
    x0, y0, x1, y1 = box
    inside = ((centre >= y0) & (centre <= y1))[:, None] & ((centre >= x0) & (centre <= x1))[None]
    return inside.flatten()


def place_of(example: Example, vocabulary: Vocabulary, text: str, encoded: Any, side: int) -> Place:
    """The place of the first thing that the question names.

    `encoded` is the fast tokenizer's output for the prompt `text`.
    """
    mentions = find(example.question, vocabulary.objects)
    patches_N = torch.zeros(side * side, dtype=torch.bool)
    if not mentions:
        return Place(token=-1, patches_N=patches_N)
    for thing in example.objects or ():
        if thing.name == mentions[0].name and thing.box is not None:
            patches_N |= patches_of(thing.box, side)
    start = text.index(example.question) + mentions[0].start
    return Place(token=encoded.char_to_token(start), patches_N=patches_N)


def grounding_loss(maps_BLN: Tensor, places: Sequence[Place]) -> Tensor:
    """Mean over nouns and layers of -log p, with p the attention that lies where it should.

    That is on the thing, or off the image where the thing is absent.

    Args:
        maps_BLN: attention of each question's noun to the image, mean over heads, with gradient.

    Half of a noun's attention lies on its thing, a quarter of another's on the image that lacks it:
    (ln 2 + ln 4/3) / 2.

    >>> maps = torch.tensor([[[0.5, 0.1]], [[0.2, 0.05]]])
    >>> there, absent = torch.tensor([True, False]), torch.tensor([False, False])
    >>> places = [Place(token=3, patches_N=patches) for patches in (there, absent)]
    >>> round(float(grounding_loss(maps, places)), 4)
    0.4904
    """
    target_BN = torch.stack([place.patches_N for place in places]).to(maps_BLN.device)
    named_B = torch.tensor([place.token >= 0 for place in places], device=maps_BLN.device)
    on_BL = (maps_BLN * target_BN[:, None]).sum(-1)
    right_BL = torch.where(target_BN.any(1)[:, None], on_BL, 1 - maps_BLN.sum(-1))
    losses_BL = -right_BL.clamp_min(EPS).log() * named_B[:, None]
    return losses_BL.sum() / (named_B.sum() * maps_BLN.shape[1]).clamp_min(1)
