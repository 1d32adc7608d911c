"""Answers that go on from a beginning, instead of from their prompt alone.

A pair whose answers share a verified beginning (`pairs.unit: continuation`) is made so: what comes
next is sampled several times behind the same words. The beginning stands where training puts an
answer (`adapt/models/continued.py`) and is part of it: it counts among its tokens, and its text.
"""

from collections.abc import Sequence
from typing import Any

from torch import nn

from adapt.models.continued import continued, divided
from adapt.models.prompts import answer_tokens, end_tokens


def beginning_tokens(
    model: nn.Module, processor: Any, beginnings: Sequence[str]
) -> list[list[int]]:
    """The tokens of each, none of an empty one; InputError for a special token of the model's."""
    if not any(beginnings):
        return [[] for _ in beginnings]
    tokens = answer_tokens(processor, beginnings, end_tokens(model, processor))
    return [one[:-1] for one in tokens]


def behind(processor: Any, prompts: Any, tokens: Sequence[Sequence[int]]) -> Any:
    """The prompts of a batch, each with its tokens behind it, padded on the left.

    Where there are no tokens at all, the prompts are left as they are.
    """
    if any(tokens):
        pad = processor.tokenizer.pad_token_id
        made = continued(divided(prompts).tokens, tokens, pad, padding_side="left")
        prompts.update({name: made[name] for name in made if name != "completion_mask"})
    return prompts


def room(tokens: Sequence[Sequence[int]], max_new_tokens: int) -> list[int]:
    """How many tokens may follow each beginning: the whole answer has `max_new_tokens`.

    One at least, so that every answer can end.

    >>> room([[], [5, 6], [5, 6, 7, 8]], 4)
    [4, 2, 1]
    """
    return [max(max_new_tokens - len(one), 1) for one in tokens]
