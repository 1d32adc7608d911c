"""Batched answers of a vision-language model, with its attention to the image from the same pass.

Shapes: R rows, B answers (rows times samples), T generated tokens, L layers, N image tokens.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from adapt.attention.anchor import anchors, by_grid
from adapt.attention.capture import observed
from adapt.attention.layout import Grid, Layout, layout_of
from adapt.attention.trace import Attention, mean_of_first
from adapt.generation.decoding.confidence import Confidence
from adapt.generation.decoding.config import own_config
from adapt.generation.decoding.sampling import Gumbel, seed_of
from adapt.generation.decoding.steer import DecodeObserver
from adapt.generation.settings import SteerConfig
from adapt.models.prompts import Histories, Pictures, prompt_inputs


class DebiasMasks(Protocol):
    """Where debias masks come from: `adapt.generation.debias.Debias`."""

    def covering(self, layout: Layout, images: Pictures) -> Mapping[Grid, Tensor]:
        """A mask for every grid of the layout, that of prompts with these pictures."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Decoding:
    """How answers are decoded.

    `anchor_tokens` is K, the tokens after which steering starts. `debias` has a mask for each grid
    and `steer` the rule; None does without. At `temperature` 0 decoding is greedy; above, `samples`
    answers to each prompt are drawn, which depend on `seed` and the row's id alone.
    """

    anchor_tokens: int
    max_new_tokens: int
    steer: SteerConfig | None = None
    debias: DebiasMasks | None = None
    samples: int = 1
    temperature: float = 0.0
    seed: int = 0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Answers(Attention):
    """Answers of one batch, and their attention.

    `mask_BT` is true for an answer's tokens, false from its end token on. `layout` is that of the R
    prompts, `sizes` the (width, height) of their pictures; `samples` answers to one prompt stand
    side by side. `logprob_BT`: how probable the model held each token (nats, before temperature).
    """

    texts: list[str]
    tokens_BT: Tensor
    mask_BT: Tensor
    logprob_BT: Tensor
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
) -> Answers:
    """Generate answers to the (pictures, question) rows of one batch, B = rows * samples.

    `ids` name the rows, so that what a row samples does not depend on the others; by default a row
    is its number in the batch. `histories`: the turns before each question. Raises InputError where
    the model cannot be observed.
    """
    d = decoding
    # 1. Where the images stand in the prompts, so that attention to them can be read.
    inputs = prompt_inputs(model, processor, images, questions, histories)
    layout, start = layout_of(model, inputs), inputs["input_ids"].shape[1]
    debias = d.debias.covering(layout, images) if d.debias is not None else None
    # 2. The samples of a prompt are rows of their own: the whole batch, once for each sample, is
    # right whatever a processor's tensors look like.
    many, of_all = dict(inputs), layout
    if d.samples > 1:
        many = {name: torch.cat([value] * d.samples) for name, value in inputs.items()}
        of_all = layout_of(model, many)
    # 3. One generation: the observer reads attention and steers, `Confidence` reads probabilities.
    observer = DecodeObserver(of_all, d.anchor_tokens, debias, d.steer)
    confidence, named = Confidence(), ids or [str(row) for row in range(len(questions))]
    processors: list[Any] = [confidence]
    if d.temperature > 0:
        seeds = [seed_of(d.seed, name, n) for n in range(d.samples) for name in named]
        processors.append(Gumbel(seeds, d.temperature, many["input_ids"].device))
    with own_config(model, processor, d.max_new_tokens) as config, observed(model, observer):
        sequences = model.generate(**many, generation_config=config, logits_processor=processors)
    # 4. What belongs to an answer: all before its first end token.
    tokens_BT = sequences[:, start:]
    ends = torch.tensor(config.eos_token_id, device=tokens_BT.device)
    mask_BT = torch.isin(tokens_BT, ends).cumsum(1) == 0
    kept = {"tokens_BT": tokens_BT, "mask_BT": mask_BT, **vars(observer.attention(mask_BT))}
    kept["logprob_BT"] = confidence.logprobs(sequences, start)
    # 5. The answers to one prompt side by side.
    if d.samples > 1:
        kept = {name: _side_by_side(value, d.samples) for name, value in kept.items()}
    texts = _texts(processor, kept["tokens_BT"], kept["mask_BT"])
    sizes = [[image.size for image in row] for row in images]
    return Answers(**kept, texts=texts, layout=layout, sizes=sizes, samples=d.samples)


def _side_by_side(values: Tensor, samples: int) -> Tensor:
    """Values of all rows once for each sample, as all samples of each row.

    >>> _side_by_side(torch.tensor([10, 20, 11, 21]), samples=2)
    tensor([10, 11, 20, 21])
    """
    return values.unflatten(0, (samples, -1)).transpose(0, 1).flatten(0, 1)


def _texts(processor: Any, tokens_BT: Tensor, mask_BT: Tensor) -> list[str]:
    lengths = mask_BT.sum(1).tolist()
    rows = [row[:n] for row, n in zip(tokens_BT.tolist(), lengths, strict=True)]
    return processor.batch_decode(rows, skip_special_tokens=True)


def first_maps(answers: Answers, anchor_tokens: int) -> Tensor:
    """Mean map over the first K tokens of each answer, or all of a shorter one: [B, L, N].

    `anchor_tokens` is at most that of the decoding.
    """
    return mean_of_first(answers.first_BKLN[:, :anchor_tokens], answers.mask_BT)


def answer_anchors(
    answers: Answers, anchor_tokens: int, debias: Mapping[Grid, Tensor] | None
) -> Tensor:
    """The visual anchor of each answer, whatever the grids of its image, [B, N]."""
    patches = by_grid(answers.layout, answers.samples)
    return anchors(first_maps(answers, anchor_tokens), patches, debias)
