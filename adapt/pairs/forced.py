"""A model reads an answer that it did not make itself: prompt and answer as one sequence."""

from collections.abc import Sequence
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from adapt.generation.batches import Prompt
from adapt.models.continued import continued, divided
from adapt.models.prompts import answer_tokens, encode, end_tokens, place_of


def spoken(model: nn.Module, processor: Any, answers: Sequence[str]) -> list[list[int]]:
    """The tokens of each answer without its end token, which belongs to none.

    An answer without any, some white space, is the step that ends it, as in generation.
    """
    tokens = answer_tokens(processor, answers, end_tokens(model, processor))
    return [one[:-1] or one for one in tokens]


def sequences(
    model: nn.Module, processor: Any, prompts: Sequence[Prompt], tokens: Sequence[Sequence[int]]
) -> tuple[dict[str, Tensor], list[Sequence[Image.Image]]]:
    """The model's inputs for prompts and the tokens behind them, and the prompts' pictures.

    Padded on the right, with `completion_mask`, which is 1 at the tokens.
    """
    images = [prompt.images for prompt in prompts]
    questions, histories = [p.question for p in prompts], [p.history for p in prompts]
    made = divided(encode(processor, images, questions, "right", histories))
    batch = continued(made.tokens, tokens, processor.tokenizer.pad_token_id) | made.pictures
    device, dtype = place_of(model)
    cast = {k: v.to(device, dtype if v.is_floating_point() else None) for k, v in batch.items()}
    return cast, images


@torch.no_grad()
def log_probs_of(model: Any, processor: Any, prompt: Prompt, tokens: Sequence[int]) -> Tensor:
    """How probable the model holds each token behind a prompt, [T], in nats."""
    batch, _ = sequences(model, processor, [prompt], [tokens])
    del batch["completion_mask"]
    count = len(tokens)
    # The logits of the tokens and of the one before, which is all that produces them.
    logits_1TV = model(**batch, use_cache=False, logits_to_keep=count + 1).logits
    logprob_TV = logits_1TV[0, -count - 1 : -1].float().log_softmax(-1)
    return logprob_TV.gather(1, batch["input_ids"][0, -count:, None])[:, 0]
