"""Batched answers of a vision-language model, with its attention to the image from the same generation pass.

Shapes: B answers, T generated tokens, L layers, N image tokens.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from adapt.attention.anchor import Grid, debias_mask
from adapt.attention.capture import layer_count, observed
from adapt.attention.layout import image_columns, patch_grid
from adapt.attention.steer import DecodeObserver, SteerConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class Answers:
    """Answers of one batch. `mask_BT` is true for the tokens of the answer, false from the end token on."""

    texts: list[str]
    tokens_BT: Tensor
    mask_BT: Tensor
    maps_BTLN: Tensor
    fired_BTL: Tensor
    grid: Grid


def chat_prompts(processor: Any, questions: Sequence[str]) -> list[str]:
    """Each question after one image, through the processor's own chat template, ready for the answer."""
    turns = [
        [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": question}]}] for question in questions
    ]
    return [processor.apply_chat_template(turn, add_generation_prompt=True, tokenize=False) for turn in turns]


@torch.inference_mode()
def answer(
    model: nn.Module,
    processor: Any,
    images: Sequence[Image.Image],
    questions: Sequence[str],
    *,
    first: int,
    max_new_tokens: int,
    debias_N: Tensor | None = None,
    steer: SteerConfig | None = None,
    samples: int = 1,
    temperature: float = 0.0,
    seed: int = 0,
) -> Answers:
    """Generate answers to (image, question) pairs of one batch; temperature 0 is greedy.

    With `samples` > 1, answers to one pair are adjacent (B = pairs * samples). Sampling depends on `seed` alone.
    """
    device = next(model.parameters()).device
    inputs = processor(
        images=list(images),
        text=chat_prompts(processor, questions),
        padding=True,
        padding_side="left",
        return_tensors="pt",
        add_special_tokens=False,  # the chat template has placed them
    ).to(device)
    columns_BN = image_columns(inputs["input_ids"], model.config.image_token_id)
    grid = patch_grid(model.config, inputs, columns_BN)
    debias_N = torch.ones(columns_BN.shape[1], device=device) if debias_N is None else debias_N.to(device)
    observer = DecodeObserver(columns_BN, layer_count(model), first, grid, debias_N, steer)
    sampling = {"do_sample": True, "temperature": temperature, "top_k": 0} if temperature > 0 else {"do_sample": False}
    with observed(model, observer), torch.random.fork_rng():
        torch.manual_seed(seed)
        sequences = model.generate(**inputs, max_new_tokens=max_new_tokens, num_return_sequences=samples, **sampling)
    tokens_BT = sequences[:, inputs["input_ids"].shape[1] :]
    mask_BT = _before_end(tokens_BT, processor.tokenizer.eos_token_id)
    texts = processor.batch_decode(
        tokens_BT * mask_BT + processor.tokenizer.pad_token_id * ~mask_BT, skip_special_tokens=True
    )
    maps_BTLN = observer.maps()
    assert maps_BTLN.shape[1] == tokens_BT.shape[1], "one observed step per generated token"
    return Answers(
        texts=texts, tokens_BT=tokens_BT, mask_BT=mask_BT, maps_BTLN=maps_BTLN, fired_BTL=observer.fired(), grid=grid
    )


def _before_end(tokens_BT: Tensor, eos: int) -> Tensor:
    return (tokens_BT == eos).cumsum(1) == 0


def first_maps(answers: Answers, first: int) -> Tensor:
    """Mean map over the first K answer tokens (fewer when the answer is shorter), per layer: [B, L, N]."""
    weight_BT = (answers.mask_BT[:, :first]).to(answers.maps_BTLN.dtype)
    weight_BT[:, 0] = 1  # an empty answer still has the step that chose to end it
    total = (answers.maps_BTLN[:, :first] * weight_BT[:, :, None, None]).sum(1)
    return total / weight_BT.sum(1)[:, None, None]


def estimate_debias(
    model: nn.Module,
    processor: Any,
    questions: Sequence[str],
    size: tuple[int, int],
    *,
    count: int,
    first: int,
    seed: int,
) -> Tensor:
    """`debias_mask` of a model and grid, [N], from `count` images of uniform noise under the given questions."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randint(0, 256, (count, size[1], size[0], 3), generator=generator, dtype=torch.uint8)
    images = [Image.fromarray(pixels.numpy()) for pixels in noise]
    prompts = [questions[i % len(questions)] for i in range(count)]
    answers = answer(model, processor, images, prompts, first=first, max_new_tokens=first)
    return debias_mask(first_maps(answers, first))


def token_ends(tokenizer: Any, tokens: Sequence[int]) -> list[int]:
    """Where each token ends in the decoded text, in characters: `len(decode(tokens[: t + 1]))`."""
    return [len(tokenizer.decode(tokens[: t + 1], skip_special_tokens=True)) for t in range(len(tokens))]
