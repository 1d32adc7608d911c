"""Batched answers of a vision-language model, with its attention to the image from the same pass.

Shapes: B answers, T generated tokens, L layers, N image tokens.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from adapt.attention.anchor import anchors, by_grid
from adapt.attention.capture import observed
from adapt.attention.layout import Grid, Layout, layout_of
from adapt.generation.confidence import Confidence
from adapt.generation.settings import SteerConfig
from adapt.generation.steer import DecodeObserver
from adapt.models.prompts import prompt_inputs


@dataclasses.dataclass(frozen=True, kw_only=True)
class Decoding:
    """How answers are decoded.

    `anchor_tokens` is K, the tokens after which steering starts. `debias` holds a mask per grid and
    `steer` the rule; None does without. At `temperature` 0 decoding is greedy; above, `samples`
    answers to each prompt are drawn, which depend on `seed` alone.
    """

    anchor_tokens: int
    max_new_tokens: int
    steer: SteerConfig | None = None
    debias: Mapping[Grid, Tensor] | None = None
    samples: int = 1
    temperature: float = 0.0
    seed: int = 0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Answers:
    """Answers of one batch. `mask_BT` is true for an answer's tokens, false from its end token on.

    `layout` is that of the prompts; `samples` answers to one prompt stand side by side.
    `logprob_BT`: how probable the model held each token (nats, before temperature).
    """

    texts: list[str]
    tokens_BT: Tensor
    mask_BT: Tensor
    maps_BTLN: Tensor
    fired_BTL: Tensor
    logprob_BT: Tensor
    layout: Layout
    samples: int

    @property
    def grid(self) -> Grid:
        """The patch grid that all samples share; InputError where they do not."""
        return self.layout.common_grid()


@torch.inference_mode()
def answer(
    model: nn.Module,
    processor: Any,
    images: Sequence[Sequence[Image.Image]],
    questions: Sequence[str],
    decoding: Decoding,
) -> Answers:
    """Generate answers to the (pictures, question) rows of one batch, B = rows * samples.

    Raises InputError where the model cannot be observed: see `DecodeObserver`.
    """
    # 1. Where the images stand in the prompts, so that attention to them can be read.
    inputs = prompt_inputs(model, processor, images, questions)
    layout, d = layout_of(model, inputs), decoding
    # 2. One generation: the observer reads attention and steers, `Confidence` reads probabilities.
    observer = DecodeObserver(layout, d.anchor_tokens, d.debias, d.steer, d.samples)
    confidence, is_sampled = Confidence(), d.temperature > 0
    options: dict[str, Any] = {"do_sample": is_sampled, "logits_processor": [confidence]}
    options |= {"max_new_tokens": d.max_new_tokens, "num_return_sequences": d.samples}
    options |= {"temperature": d.temperature, "top_k": 0} if is_sampled else {}
    with observed(model, observer), torch.random.fork_rng():
        torch.manual_seed(d.seed)
        sequences = model.generate(**inputs, **options)
    # 3. What belongs to an answer: all before its first end token.
    tokens_BT = sequences[:, inputs["input_ids"].shape[1] :]
    tokenizer, maps_BTLN = processor.tokenizer, observer.maps()
    assert maps_BTLN.shape[1] == tokens_BT.shape[1], "one observed step per generated token"
    mask_BT = (tokens_BT == tokenizer.eos_token_id).cumsum(1) == 0
    ended_BT = tokens_BT * mask_BT + tokenizer.pad_token_id * ~mask_BT
    return Answers(
        texts=processor.batch_decode(ended_BT, skip_special_tokens=True),
        tokens_BT=tokens_BT,
        mask_BT=mask_BT,
        maps_BTLN=maps_BTLN,
        fired_BTL=observer.fired(),
        logprob_BT=confidence.logprobs(sequences),
        layout=layout,
        samples=d.samples,
    )


def first_maps(answers: Answers, anchor_tokens: int) -> Tensor:
    """Mean map over the first K tokens of each answer, or all of a shorter one: [B, L, N]."""
    weight_BT = answers.mask_BT[:, :anchor_tokens].to(answers.maps_BTLN.dtype)
    weight_BT[:, 0] = 1  # an empty answer still has the step that chose to end it
    total = (answers.maps_BTLN[:, :anchor_tokens] * weight_BT[:, :, None, None]).sum(1)
    return total / weight_BT.sum(1)[:, None, None]


def answer_anchors(
    answers: Answers, anchor_tokens: int, debias: Mapping[Grid, Tensor] | None
) -> Tensor:
    """The visual anchor of each answer, whatever the grids of its image, [B, N]."""
    patches = by_grid(answers.layout, answers.samples)
    return anchors(first_maps(answers, anchor_tokens), patches, debias)
