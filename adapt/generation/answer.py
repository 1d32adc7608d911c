"""Batched answers of a vision-language model, with its attention to the image from the same pass.

Shapes: R rows, B answers (rows times samples), T generated tokens, L layers, N image tokens,
P places and M measures of similarity (`adapt/attention/similarity.py`).
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from adapt.attention.capture import observed
from adapt.attention.layout import Grid, Layout, layout_of
from adapt.attention.settings import PLACES
from adapt.attention.similarity import PatchSimilarity
from adapt.attention.trace import Attention, mean_of_first
from adapt.generation.begun import beginning_tokens, behind, positions_left, room
from adapt.generation.confidence import Confidence
from adapt.generation.following import Following, Hear, is_said
from adapt.generation.own_config import own_config
from adapt.generation.sampling import Gumbel, seed_of
from adapt.generation.settings import SteerConfig
from adapt.generation.steer import DecodeObserver
from adapt.models.prompts import Histories, Pictures, encode, place_of


class DebiasMasks(Protocol):
    """Where debias masks come from: `adapt.generation.debias.Debias`."""

    def covering(self, layout: Layout, images: Pictures) -> Mapping[Grid, Tensor]:
        """A mask for every grid of the layout, that of prompts with these pictures."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Decoding:
    """How answers are decoded.

    `anchor_tokens` is K, the tokens after which steering starts. `debias` has a mask for each grid
    and `steer` the rule; None does without. At `temperature` 0 decoding is greedy; above, `samples`
    answers to each prompt are drawn, which depend on `seed` and the row's id alone. `similarity`:
    whether each token's hidden state is compared with the picture's. `waits`: whether steering
    waits until whoever follows the answers allows it. `pace`: seconds between what such a one
    hears.
    """

    anchor_tokens: int
    max_new_tokens: int
    steer: SteerConfig | None = None
    debias: DebiasMasks | None = None
    samples: int = 1
    temperature: float = 0.0
    seed: int = 0
    similarity: bool = False
    waits: bool = False
    pace: float = 0.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Answers(Attention):
    """Answers of one batch, and their attention.

    `mask_BT` is true for an answer's tokens, false from its end token on. `layout` is that of the R
    prompts, `sizes` the (width, height) of their pictures; `samples` answers to one prompt stand
    side by side. `prompt_B`: tokens of each prompt. `logprob_BT`: how probable the model held each
    token (nats, before temperature). `similarity_BTPM`: of each token's hidden state with the
    picture's; no place without it. Where an answer was begun, its text is whole, and all else is of
    the tokens behind the beginning.
    """

    texts: list[str]
    tokens_BT: Tensor
    mask_BT: Tensor
    prompt_B: Tensor
    logprob_BT: Tensor
    similarity_BTPM: Tensor
    layout: Layout
    sizes: list[list[tuple[int, int]]]
    samples: int


@torch.inference_mode()
def answer(
    model: nn.Module,
    processor: Any,
    images: Pictures,
    questions: Sequence[str],
    decoding: Decoding,
    ids: Sequence[str] | None = None,
    histories: Histories | None = None,
    beginnings: Sequence[str] | None = None,
    longest: Sequence[int] | None = None,
    hear: Hear | None = None,
) -> Answers:
    """Generate answers to the (pictures, question) rows of one batch, B = rows * samples.

    `ids` name the rows, so that what a row samples does not depend on the others; by default a row
    is its number in the batch. `histories`: the turns before each question. `beginnings`: what each
    answer goes on from (`adapt/generation/begun.py`). `longest`: tokens of each answer at most, not
    more than the decoding's. `hear` follows the answers of a greedy or single sample
    (`adapt/generation/following.py`). Raises InputError where the model cannot be observed.
    """
    d = decoding
    # 1. Where the images stand in the prompts, so that attention to them can be read.
    begun = beginning_tokens(model, processor, beginnings or [""] * len(questions))
    prompts = encode(processor, images, questions, histories=histories)
    named = ids or [str(row) for row in range(len(questions))]
    inputs = behind(processor, prompts, begun)
    room_B = room(begun, d.max_new_tokens), positions_left(model, inputs, named), longest
    rest = [min(of) for of in zip(*filter(None, room_B), strict=True)]
    inputs = inputs.to(*place_of(model))
    layout = layout_of(model, inputs)
    debias = d.debias.covering(layout, images) if d.debias is not None else None
    # 2. The samples of a prompt are rows of their own.
    many = _repeated(inputs, d.samples)
    of_all = layout if d.samples == 1 else layout_of(model, many)
    # 3. One generation.
    drawing = _sampling(d, named, many["input_ids"].device)
    kept = _generated(model, processor, many, of_all, d, debias, rest, drawing, hear)
    # 4. The answers to one prompt side by side.
    if d.samples > 1:
        kept = {name: _side_by_side(value, d.samples) for name, value in kept.items()}
    texts = _texts(processor, begun, kept["tokens_BT"], kept["mask_BT"])
    sizes = [[image.size for image in row] for row in images]
    return Answers(**kept, texts=texts, layout=layout, sizes=sizes, samples=d.samples)


def _generated(
    model: Any,
    processor: Any,
    inputs: Mapping[str, Tensor],
    layout: Layout,
    d: Decoding,
    debias: Mapping[Grid, Tensor] | None,
    rest: Sequence[int],
    drawing: Sequence[Any],
    hear: Hear | None,
) -> dict[str, Tensor]:
    """Tokens, and what was read of them on the way: attention, probability, hidden states."""
    start, rest_B = inputs["input_ids"].shape[1], [*rest] * d.samples
    observer = DecodeObserver(layout, d.anchor_tokens, debias, d.steer)
    if d.waits:
        observer.may_steer(
            torch.zeros(len(rest_B), dtype=torch.bool, device=layout.columns_BN.device)
        )
    confidence, likeness = Confidence(), PatchSimilarity(layout, PLACES if d.similarity else ())
    longest = own_config(model, processor, max(rest_B))
    with longest as config, observed(model, observer), likeness.watching(model):
        ends = config.eos_token_id
        counts_B, more = layout.counts_B, dict[str, Any]()
        if hear is not None:
            assert d.samples == 1, "of one answer to each prompt"
            of = (observer, confidence, counts_B, ends, rest_B, start, hear, d.pace)
            follows = Following(*of)
            more = {"stopping_criteria": [follows]}
        sequences = model.generate(
            **inputs,
            generation_config=config,
            logits_processor=[confidence, *drawing],
            **more,
        )
    # What belongs to an answer: all before its first end token, as far as it may go.
    if hear is not None:
        follows.finish(sequences)
        rest_B = follows.room
    tokens_BT = sequences[:, start:]
    mask_BT = is_said(tokens_BT, ends, rest_B)
    return {
        "tokens_BT": tokens_BT,
        "mask_BT": mask_BT,
        "prompt_B": inputs["attention_mask"].sum(1),
        **vars(observer.attention(mask_BT)),
        "logprob_BT": confidence.logprobs(sequences),
        "similarity_BTPM": likeness.of(mask_BT.shape[1]),
    }


def _repeated(inputs: Mapping[str, Tensor], samples: int) -> dict[str, Tensor]:
    """The whole batch, once for each sample: right whatever a processor's tensors look like."""
    if samples == 1:
        return dict(inputs)
    return {name: torch.cat([value] * samples) for name, value in inputs.items()}


def _sampling(d: Decoding, names: Sequence[str], device: torch.device) -> list[Any]:
    """What draws the tokens of rows with these names; nothing at temperature 0."""
    if d.temperature == 0:
        return []
    seeds = [seed_of(d.seed, name, n) for n in range(d.samples) for name in names]
    return [Gumbel(seeds, d.temperature, device)]


def _side_by_side(values: Tensor, samples: int) -> Tensor:
    """Values of all rows once for each sample, as all samples of each row.

    >>> _side_by_side(torch.tensor([10, 20, 11, 21]), samples=2)
    tensor([10, 11, 20, 21])
    """
    return values.unflatten(0, (samples, -1)).transpose(0, 1).flatten(0, 1)


def _texts(
    processor: Any, begun: Sequence[Sequence[int]], tokens_BT: Tensor, mask_BT: Tensor
) -> list[str]:
    """The texts of whole answers, with what they go on from; the samples of a row side by side."""
    samples, lengths = len(tokens_BT) // len(begun), mask_BT.sum(1).tolist()
    rows = [
        [*begun[b // samples], *row[:n]]
        for b, (row, n) in enumerate(zip(tokens_BT.tolist(), lengths, strict=True))
    ]
    return processor.batch_decode(rows, skip_special_tokens=True)


def first_maps(answers: Answers, anchor_tokens: int) -> Tensor:
    """Mean map over the first K tokens of each answer, or all of a shorter one: [B, L, N].

    `anchor_tokens` is at most that of the decoding.
    """
    return mean_of_first(answers.first_BKLN[:, :anchor_tokens], answers.mask_BT)
