"""Batched answers of a vision-language model, with its attention to the image from the same
generation pass.

Shapes: B answers, T generated tokens, L layers, N image tokens.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import torch
from PIL import Image
from torch import Tensor, nn

from adapt.attention.anchor import Grid, anchors, by_grid, debias_mask
from adapt.attention.capture import observed
from adapt.attention.layout import Layout, layout_of
from adapt.generation.confidence import Confidence
from adapt.generation.settings import SteerConfig
from adapt.generation.steer import DecodeObserver
from adapt.models.identity import content_key
from adapt.params import InputError

Debias: TypeAlias = Tensor | Mapping[Grid, Tensor]
KEPT = 64
_masks: dict[
    str, dict[Grid, Tensor]
] = {}  # debias masks that this process has estimated, by what they depend on


@dataclasses.dataclass(frozen=True, kw_only=True)
class Answers:
    """Answers of one batch. `mask_BT` is true for the tokens of the answer, false from the end
    token on.

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


def chat_prompts(processor: Any, questions: Sequence[str]) -> list[str]:
    """Each question after one image, through the processor's own chat template, ready for the
    answer.
    """
    turns = [
        [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": question}]}]
        for question in questions
    ]
    return [
        processor.apply_chat_template(turn, add_generation_prompt=True, tokenize=False)
        for turn in turns
    ]


@torch.inference_mode()
def answer(
    model: nn.Module,
    processor: Any,
    images: Sequence[Image.Image],
    questions: Sequence[str],
    *,
    anchor_tokens: int,
    max_new_tokens: int,
    debias_N: Debias | None = None,
    steer: SteerConfig | None = None,
    samples: int = 1,
    temperature: float = 0.0,
    seed: int = 0,
) -> Answers:
    """Generate answers to (image, question) pairs of one batch; temperature 0 is greedy.

    With `samples` > 1, answers to one pair are adjacent (B = pairs * samples). Sampling depends on
    `seed` alone. `debias_N` is the mask of the batch's one grid, or masks by grid.

    Raises InputError where the model cannot be observed: see `DecodeObserver`.
    """
    inputs = prompt_inputs(model, processor, images, questions)
    layout = layout_of(model, inputs)
    observer = DecodeObserver(layout, anchor_tokens, _by_grid(debias_N, layout), steer, samples)
    sampling = (
        {"do_sample": True, "temperature": temperature, "top_k": 0}
        if temperature > 0
        else {"do_sample": False}
    )
    confidence = Confidence()
    with observed(model, observer), torch.random.fork_rng():
        torch.manual_seed(seed)
        sequences = model.generate(
            **inputs,
            max_new_tokens=max_new_tokens,
            num_return_sequences=samples,
            logits_processor=[confidence],
            **sampling,
        )
    tokens_BT = sequences[:, inputs["input_ids"].shape[1] :]
    mask_BT = _before_end(tokens_BT, processor.tokenizer.eos_token_id)
    texts = processor.batch_decode(
        tokens_BT * mask_BT + processor.tokenizer.pad_token_id * ~mask_BT, skip_special_tokens=True
    )
    maps_BTLN = observer.maps()
    assert maps_BTLN.shape[1] == tokens_BT.shape[1], "one observed step per generated token"
    return Answers(
        texts=texts,
        tokens_BT=tokens_BT,
        mask_BT=mask_BT,
        maps_BTLN=maps_BTLN,
        fired_BTL=observer.fired(),
        logprob_BT=confidence.logprobs(sequences),
        layout=layout,
        samples=samples,
    )


def prompt_inputs(
    model: nn.Module, processor: Any, images: Sequence[Image.Image], questions: Sequence[str]
) -> Any:
    """What the model takes for these pairs, left-padded, on its device."""
    return processor(
        images=[
            [image] for image in images
        ],  # one list per prompt: the form that every family takes
        text=chat_prompts(processor, questions),
        padding=True,
        padding_side="left",
        return_tensors="pt",
        add_special_tokens=False,  # the chat template has placed them
    ).to(next(model.parameters()).device)


def _by_grid(debias_N: Debias | None, layout: Layout) -> dict[Grid, Tensor] | None:
    if debias_N is None:
        return None
    masks = {layout.common_grid(): debias_N} if isinstance(debias_N, Tensor) else debias_N
    return {grid: mask.to(layout.columns_BN.device) for grid, mask in masks.items()}


def _before_end(tokens_BT: Tensor, eos: int) -> Tensor:
    return (tokens_BT == eos).cumsum(1) == 0


def first_maps(answers: Answers, anchor_tokens: int) -> Tensor:
    """Mean map over the first K answer tokens (fewer when the answer is shorter), per layer: [B, L,
    N].
    """
    weight_BT = (answers.mask_BT[:, :anchor_tokens]).to(answers.maps_BTLN.dtype)
    weight_BT[:, 0] = 1  # an empty answer still has the step that chose to end it
    total = (answers.maps_BTLN[:, :anchor_tokens] * weight_BT[:, :, None, None]).sum(1)
    return total / weight_BT.sum(1)[:, None, None]


def answer_anchors(answers: Answers, anchor_tokens: int, debias_N: Debias | None) -> Tensor:
    """The visual anchor of each answer, whatever the grids of its image, [B, N]."""
    patches = by_grid(answers.layout, answers.samples)
    return anchors(first_maps(answers, anchor_tokens), patches, _by_grid(debias_N, answers.layout))


def estimate_debias(
    model: nn.Module,
    processor: Any,
    questions: Sequence[str],
    size: tuple[int, int],
    *,
    count: int,
    anchor_tokens: int,
    seed: int,
) -> Tensor:
    """`debias_masks` of a model whose images of this size have one grid, [N]; InputError where they
    have several.
    """
    masks = debias_masks(
        model, processor, questions, size, count=count, anchor_tokens=anchor_tokens, seed=seed
    )
    if len(masks) > 1:
        raise InputError(
            f"images of {size[0]} x {size[1]} pixels have {len(masks)} patch grids: use `debias_masks`"
        )
    return next(iter(masks.values()))


def debias_masks(
    model: nn.Module,
    processor: Any,
    questions: Sequence[str],
    size: tuple[int, int],
    *,
    count: int,
    anchor_tokens: int,
    seed: int,
) -> dict[Grid, Tensor]:
    """`debias_mask` of a model for every grid that images of `size` (width, height) have: {grid:
    [rows * columns]}.

    From `count` images of uniform noise under the given questions. Asked again with the same
    weights, configuration and prompts, the process answers from memory.
    """
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randint(
        0, 256, (count, size[1], size[0], 3), generator=generator, dtype=torch.uint8
    )
    images = [Image.fromarray(pixels.numpy()) for pixels in noise]
    prompts = [questions[i % len(questions)] for i in range(count)]
    key = content_key(model, prompt_inputs(model, processor, images, prompts), anchor_tokens)
    if key not in _masks:
        answers = answer(
            model,
            processor,
            images,
            prompts,
            anchor_tokens=anchor_tokens,
            max_new_tokens=anchor_tokens,
        )
        maps_BLN, patches = first_maps(answers, anchor_tokens), by_grid(answers.layout)
        _masks[key] = {p.grid: debias_mask(p.of(maps_BLN)) for p in patches}
        for old in list(_masks)[:-KEPT]:
            _masks.pop(old, None)
    return dict(_masks[key])


def token_ends(tokenizer: Any, tokens: Sequence[int]) -> list[int]:
    """Where each token ends in the decoded text, in characters: `len(decode(tokens[: t + 1]))`."""
    return [
        len(tokenizer.decode(tokens[: t + 1], skip_special_tokens=True)) for t in range(len(tokens))
    ]
