"""Where to look: supervision of questions' attention by the boxes, for the embedded default model.

A question names a thing: its noun should find the patches of that thing, and should find nothing
where the thing is absent. Without this, the tiny model needs many thousand steps before a noun
looks anything up: after 800 it answers every "is there" with yes and guesses colours.

What the noun has found is of use only to the one token that decides the answer, a yes or no or a
colour. It bears a sixth of its answer's loss or less, so when it comes to look there is chance, and
some seeds never got that far. So it is shown as well what seeds that learn find by themselves: in
the layer behind the noun's it looks at the noun, in the question or again in the answer, and in the
last one where the noun has looked: at the thing, or off the image. That is a scaffold, which goes
away while the model learns: kept up to the end, it leaves descriptions worse.

Shapes: B batch, L layers, N = side * side image tokens, M places of a noun.
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
    """Tokens of a question and its answer, -1 for one that there is not, and where they look.

    token: the question's noun; `patches_N` are the patches of that thing, none where it is absent.
    repeated: the noun again, in the answer before its deciding word.
    deciding: the token whose output is the answer's deciding word.
    """

    token: int
    patches_N: Tensor
    repeated: int = -1
    deciding: int = -1

    def decided(self, answer: int, word: int, repeated: int) -> "Place":
        """This place with what its answer adds, which starts at token `answer`.

        `word` is the deciding word in the answer, whose token before it decides; `repeated` the
        noun in the answer, or -1.
        """
        again = answer + repeated if repeated >= 0 else -1
        return dataclasses.replace(self, repeated=again, deciding=answer + word - 1)


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


def decided_at(example: Example, answer: str, vocabulary: Vocabulary) -> tuple[int, int] | None:
    """Where in `answer` the picture decides, and where the noun stands before that, or -1.

    Both are characters; None for an answer without one deciding word.

    >>> words = Vocabulary(objects={"car": ("car", "cars")}, colours=("red", "blue"))
    >>> def asked(kind):
    ...     unknown = {"images": (), "history": (), "question": "", "answer": ""}
    ...     return Example(id="", image_id="", kind=kind, **unknown, objects=(), absent=())
    >>> decided_at(asked("colour"), "the car is red.", words)
    (11, 4)
    >>> decided_at(asked("exists"), "no, there is no car.", words)
    (0, -1)
    >>> decided_at(asked("describe"), "the picture shows a red car.", words)
    """
    if example.kind == "exists":
        return 0, -1
    colours = find(answer, {colour: (colour,) for colour in vocabulary.colours})
    if example.kind != "colour" or not colours:
        return None
    start = colours[0].start
    before = [m.start for m in find(answer, vocabulary.objects) if m.start < start]
    return start, before[-1] if before else -1


def grounding_loss(maps_BLN: Tensor, places: Sequence[Place], is_there_B: Tensor) -> Tensor:
    """Mean over rows and layers of -log p, with p the attention that lies where it should.

    That is on the thing, or off the image where the thing is absent.

    Args:
        maps_BLN: attention of each row's noun, or of its deciding token, to the image, mean over
            heads, with gradient.
        is_there_B: which rows have such a token; the others do not count.

    Half of a noun's attention lies on its thing, a quarter of another's on the image that lacks it:
    (ln 2 + ln 4/3) / 2.

    >>> maps = torch.tensor([[[0.5, 0.1]], [[0.2, 0.05]]])
    >>> there, absent = torch.tensor([True, False]), torch.tensor([False, False])
    >>> places = [Place(token=3, patches_N=patches) for patches in (there, absent)]
    >>> round(float(grounding_loss(maps, places, torch.tensor([True, True]))), 4)
    0.4904
    """
    target_BN = torch.stack([place.patches_N for place in places]).to(maps_BLN.device)
    on_BL = (maps_BLN * target_BN[:, None]).sum(-1)
    right_BL = torch.where(target_BN.any(1)[:, None], on_BL, 1 - maps_BLN.sum(-1))
    return _surprise(right_BL, is_there_B)


def deciding_loss(maps_BLN: Tensor, nouns_BLM: Tensor, places: Sequence[Place]) -> Tensor:
    """Mean over deciding tokens of -log p, half of it for each of two layers.

    In the second layer p is the attention to the noun, which has looked in the first; in the last
    one what lies where the noun looked: on the thing, or off the image.

    Args:
        maps_BLN: attention of each row's deciding token to the image, mean over heads, with
            gradient, in all layers. nouns_BLM: its attention to the noun, in question and answer.

    Half on the noun and a quarter on the thing, (ln 2 + ln 4) / 2; what has no deciding token does
    not count.

    >>> maps, nouns = torch.zeros(2, 3, 2), torch.zeros(2, 3, 2)
    >>> maps[0, 2, 0], nouns[0, 1] = 0.25, torch.tensor([0.2, 0.3])
    >>> thing = torch.tensor([True, False])
    >>> places = [Place(token=3, patches_N=thing, deciding=at) for at in (7, -1)]
    >>> round(float(deciding_loss(maps, nouns, places)), 4)
    1.0397
    """
    decided_B = torch.tensor([place.deciding >= 0 for place in places])
    behind = _surprise(nouns_BLM[:, 1:2].sum(-1), decided_B)
    return (behind + grounding_loss(maps_BLN[:, -1:], places, decided_B)) / 2


def _surprise(right_BL: Tensor, is_there_B: Tensor) -> Tensor:
    """Mean of -log p over the rows that count, and all layers; 0 of nothing."""
    is_there_B = is_there_B.to(right_BL.device)
    losses_BL = -right_BL.clamp_min(EPS).log() * is_there_B[:, None]
    return losses_BL.sum() / (is_there_B.sum() * right_BL.shape[1]).clamp_min(1)
