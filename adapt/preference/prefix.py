"""Prefix sharing (arXiv 2410.20305): prompt and picture are computed once for both answers.

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

from adapt.attention.capture import NAME, decoder_of


def can_share(model: Any, batch: Mapping[str, Any]) -> bool:
    """Whether a mask of our own decides alone which token sees which.

    It does not where layers have windows (the mask replaces theirs), where the tokens of a picture
    see each other (`token_type_ids`), and in attention other than SDPA, which takes masks in other
    forms; observed attention is SDPA.
    """
    config = decoder_of(model).config
    kinds = getattr(config, "layer_types", None)
    window = getattr(config, "sliding_window", None)
    has_windows = bool(window if kinds is None else set(kinds) - {"full_attention"})
    is_sdpa = config._attn_implementation in ("sdpa", NAME)
    return is_sdpa and not has_windows and "token_type_ids" not in batch


def pair_forward(model: Callable[..., Any], *, labels: Tensor, **inputs: Any) -> Any:
    """Outputs of TRL's fused head for pairs, [2B, S - 1], from one sequence for each pair.

    Called as TRL calls a model, with inputs and labels of [2B, S]; log-probabilities and the other
    outputs for each token are 0 where there is no label.
    """
    # 1. Prompts end at the same place in all rows: they are padded on the left.
    prompt = int((labels != -100).any(0).int().argmax())
    # 2. Labels are shifted before they are joined: the token that comes after the chosen answer in
    #    the joined sequence is not its continuation.
    outputs = model(**packed(inputs, prompt), shift_labels=joined(shifted(labels), prompt))
    # 3. What is computed for each token goes back to the two rows of its pair.
    per_token = {
        name: unpacked(value, prompt, labels.shape[1])
        for name, value in outputs.items()
        if isinstance(value, Tensor) and value.ndim == 2
    }
    return dataclasses.replace(outputs, **per_token)


def joined(value_2BS: Tensor, prompt: int) -> Tensor:
    """Chosen rows, each followed by its rejected row from the prompt's last token on: [B, Z].

    >>> joined(torch.tensor([[1, 2, 3, 4], [1, 2, 5, 6]]), prompt=2)
    tensor([[1, 2, 3, 4, 2, 5, 6]])
    """
    chosen, rejected = value_2BS.chunk(2)
    return torch.cat([chosen, rejected[:, prompt - 1 :]], 1)


def shifted(labels_BS: Tensor) -> Tensor:
    """The label that each position produces."""
    return torch.nn.functional.pad(labels_BS[:, 1:], (0, 1), value=-100)


def packed(batch: Mapping[str, Any], prompt: int) -> dict[str, Any]:
    """The model's inputs for whole pairs."""
    S, device = batch["input_ids"].shape[1], batch["input_ids"].device
    # Pictures, and whatever else a family of models asks for, are the same in both halves.
    halves = {k: v.chunk(2)[0] if isinstance(v, Tensor) else v for k, v in batch.items()}
    position_2S = torch.arange(S, device=device).expand(2, S)
    return halves | {
        "input_ids": joined(batch["input_ids"], prompt),
        "attention_mask": branches(joined(batch["attention_mask"], prompt) > 0, prompt, S),
        "position_ids": joined(position_2S, prompt),
    }


def branches(real_BZ: Tensor, prompt: int, length: int) -> Tensor:
    """Which position sees which, [B, 1, Z, Z]; `length` is S.

    Prompt of one token, answers of one:

    >>> branches(torch.ones(1, 4).bool(), prompt=1, length=2)[0, 0].int()
    tensor([[1, 0, 0, 0],
            [1, 1, 0, 0],
            [0, 0, 1, 0],
            [0, 0, 1, 1]], dtype=torch.int32)
    """
    row_Z = torch.arange(real_BZ.shape[1], device=real_BZ.device)
    row, column = row_Z[:, None], row_Z
    # 1. Every position sees the real tokens up to itself,
    visible = real_BZ[:, None] & (column <= row)
    # 2. but the rejected branch, which starts at S with the prompt's last token, sees neither the
    #    chosen answer nor that token's first copy,
    other_branch = (row >= length) & (column >= prompt - 1) & (column < length)
    # 3. and padding sees itself: the softmax of an empty row is not a number.
    return (visible & ~other_branch | (row == column))[:, None]


def unpacked(value_BZ: Tensor, prompt: int, length: int) -> Tensor:
    """What positions of whole pairs produced, where TRL has it: [2B, S - 1], 0 in the prompt.

    >>> unpacked(torch.tensor([[0, 3, 4, 0, 5, 6, 0]]), prompt=2, length=4)
    tensor([[0, 3, 4],
            [0, 5, 6]])
    """
    # A branch's first token is produced by the prompt's last one; its last token produces nothing.
    chosen, rejected = value_BZ[:, prompt - 1 : length - 1], value_BZ[:, length:-1]
    return torch.nn.functional.pad(torch.cat([chosen, rejected]), (prompt - 1, 0))
