"""Answers that go on from a beginning, instead of from their prompt alone.

A pair whose answers share a verified beginning (`pairs.unit: continuation`) is made so: what comes
next is sampled several times behind the same words. The beginning stands where training puts an
answer (`adapt/models/continued.py`) and is part of it: it counts among its tokens, and its text.
"""

import sys
from collections.abc import Sequence
from typing import Any

from torch import nn

from adapt.models.continued import continued, divided
from adapt.models.prompts import answer_tokens, end_tokens
from adapt.names import one_line
from adapt.params import InputError


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


def positions_left(model: Any, prompts: Any, names: Sequence[str]) -> list[int]:
    """How many tokens the model has positions for behind each prompt.

    InputError names a prompt that fills them all: what a model says beyond its positions is noise.
    """
    config = getattr(model, "module", model).config.get_text_config(decoder=True)
    most = getattr(config, "max_position_embeddings", None) or sys.maxsize
    lengths = prompts["attention_mask"].sum(1).tolist()
    for name, length in zip(names, lengths, strict=True):
        if length >= most:
            problem = f"the prompt has {length} tokens, the model has {most} positions"
            advice = "ask for less, or show smaller pictures"
            raise InputError(f"question {one_line(name)}: {problem}; {advice}")
    return [most - length for length in lengths]
