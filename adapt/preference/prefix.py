"""Prefix sharing: a pair's prompt and picture are computed once for both of its answers (arXiv
2410.20305).

TRL's batch holds every prompt twice, all chosen answers first. Here a pair is one sequence,

    prompt | chosen answer | the prompt's last token once more | rejected answer

in which the rejected branch sees the prompt and itself alone, at the positions that it has in TRL's
batch. The last token stands twice because it produces the first token of both answers. What the
model returns goes back to where TRL looks for it, so that the loss stays TRL's; the pictures are
those of the first half.

Shapes: B pairs, P prompt tokens padded on the left, R answer tokens padded on the right, S = P + R,
Z = S + 1 + R.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from adapt.attention.capture import decoder_of


def can_share(model: Any, batch: Mapping[str, Any]) -> bool:
    """Whether a mask of our own says all there is to say about who sees whom.

    It does not where layers have windows (the mask replaces theirs), where the tokens of a picture
    see each other (`token_type_ids`), and in attention other than SDPA, which takes masks in other
    forms.
    """
    config = decoder_of(model).config
    kinds = getattr(config, "layer_types", None)
    windows = (
        getattr(config, "sliding_window", None)
        if kinds is None
        else set(kinds) - {"full_attention"}
    )
    return not windows and "token_type_ids" not in batch and config._attn_implementation == "sdpa"


def sharing(model: Callable[..., Any]) -> Callable[..., Any]:
    """`model` with TRL's fused head, to be called as TRL calls it: a batch of [2B, S], figures of
    [2B, S - 1].
    """

    def call(*, labels: Tensor, **batch: Any) -> Any:
        prompt = int((labels != -100).any(0).int().argmax())
        out = model(**packed(batch, prompt), shift_labels=joined(shifted(labels), prompt))
        length, fields = (
            labels.shape[1],
            {f.name: getattr(out, f.name) for f in dataclasses.fields(out)},
        )
        apart = {
            name: unpacked(value, prompt, length)
            for name, value in fields.items()
            if isinstance(value, Tensor) and value.ndim == 2
        }
        return dataclasses.replace(out, **apart)

    return call


def joined(value_2BS: Tensor, prompt: int) -> Tensor:
    """A row of the chosen half, then the same pair's rejected row from the prompt's last token on:
    [B, Z].

    >>> joined(torch.tensor([[1, 2, 3, 4], [1, 2, 5, 6]]), prompt=2)
    tensor([[1, 2, 3, 4, 2, 5, 6]])
    """
    chosen, rejected = value_2BS.chunk(2)
    return torch.cat([chosen, rejected[:, prompt - 1 :]], 1)


def shifted(labels_BS: Tensor) -> Tensor:
    """The label that each position produces."""
    return torch.nn.functional.pad(labels_BS[:, 1:], (0, 1), value=-100)


def packed(batch: Mapping[str, Any], prompt: int) -> dict[str, Any]:
    """The model's inputs for whole pairs; everything but tokens and mask is taken from the chosen
    half.
    """
    S, device = batch["input_ids"].shape[1], batch["input_ids"].device
    position_S = torch.arange(S, device=device)
    return {
        key: value.chunk(2)[0] if isinstance(value, Tensor) else value
        for key, value in batch.items()
    } | {
        "input_ids": joined(batch["input_ids"], prompt),
        "attention_mask": branches(joined(batch["attention_mask"], prompt) > 0, prompt, S),
        "position_ids": joined(position_S.expand(2, S), prompt),
    }


def branches(real_BZ: Tensor, prompt: int, length: int) -> Tensor:
    """Who sees whom, [B, 1, Z, Z]; padding sees itself, so that no row is empty.

    Prompt of one token, answers of one:

    >>> branches(torch.ones(1, 4).bool(), prompt=1, length=2)[0, 0].int()
    tensor([[1, 0, 0, 0],
            [1, 1, 0, 0],
            [0, 0, 1, 0],
            [0, 0, 1, 1]], dtype=torch.int32)
    """
    at = torch.arange(real_BZ.shape[1], device=real_BZ.device)
    row, column = at[:, None], at
    other_branch = (row >= length) & (column >= prompt - 1) & (column < length)
    return (real_BZ[:, None] & (column <= row) & ~other_branch | (row == column))[:, None]


def unpacked(value_BZ: Tensor, prompt: int, length: int) -> Tensor:
    """What positions of whole pairs produced, where TRL has it: [2B, S - 1], 0 in the prompt.

    >>> unpacked(torch.tensor([[0, 3, 4, 0, 5, 6, 0]]), prompt=2, length=4)
    tensor([[0, 3, 4],
            [0, 5, 6]])
    """
    chosen, rejected = value_BZ[:, prompt - 1 : length - 1], value_BZ[:, length:-1]
    return torch.nn.functional.pad(torch.cat([chosen, rejected]), (prompt - 1, 0))
