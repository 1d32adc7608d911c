"""Prompts that something has been said behind: the model's inputs for both as one sequence.

Training puts an answer behind its prompt, generation the beginning that an answer goes on from. In
either case what was said is text of the answer's, whatever the model does with its prompts: a model
whose prompts see themselves as a whole does not see an answer so.

Shapes: P prompts, A answers, S sequence.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence


def is_per_token(value: Any, ids_PS: Tensor) -> bool:
    """Whether an input of the model has a value for each token."""
    return isinstance(value, Tensor) and value.shape == ids_PS.shape


@dataclasses.dataclass(frozen=True)
class Prompts:
    """What a processor makes of prompts: [P, S] each of their tokens, and the rest of pictures."""

    tokens: dict[str, Tensor]
    pictures: dict[str, Tensor]


def divided(features: Mapping[str, Any]) -> Prompts:
    """What has a value for each token, and what belongs to the pictures."""
    ids = features["input_ids"]
    tokens = {key: value for key, value in features.items() if is_per_token(value, ids)}
    return Prompts(tokens, {key: value for key, value in features.items() if key not in tokens})


def continued(
    prompts: Mapping[str, Tensor],
    answers: Sequence[Sequence[int]],
    pad: int,
    *,
    begun: Sequence[int] | None = None,
    padding_side: Literal["left", "right"] = "right",
) -> dict[str, Tensor]:
    """Each answer behind its prompt, padded: [A, S].

    `prompts`: their per-token inputs, [P, S'] with padding; answer a goes on from prompt a mod P.
    `completion_mask` is 1 at the tokens of answers, but for the first `begun` ones of each, which
    count as part of what is asked.
    """
    real = prompts["attention_mask"].bool()
    types = {key: _answer_type(key, prompts[key]) for key in prompts.keys() - {"input_ids"}}
    columns: dict[str, list[Tensor]] = {}
    for i, tokens in enumerate(answers):
        # 1. A prompt without its padding, and the answer right behind it.
        answer = torch.tensor(tokens, dtype=torch.long)
        row = {key: value[i % len(real)][real[i % len(real)]] for key, value in prompts.items()}
        going_on = {key: torch.full_like(answer, types[key]) for key in types}
        going_on |= {"input_ids": answer, "completion_mask": torch.ones_like(answer)}
        going_on["completion_mask"][: begun[i] if begun else 0] = 0
        row["completion_mask"] = torch.zeros_like(row["input_ids"])
        for key, value in going_on.items():
            columns.setdefault(key, []).append(torch.cat([row[key], value]))
    # 2. Padding, which no token sees.
    fill, side = {"input_ids": pad}, padding_side
    return {
        key: pad_sequence(values, True, padding_value=fill.get(key, 0), padding_side=side)
        for key, values in columns.items()
    }


def _answer_type(key: str, prompts: Tensor) -> int:
    """The value of a per-token input of the model at an answer's tokens.

    Token types tell pictures (1) from text (0), or a prompt (0) from what follows it (1). Where the
    first part of a sequence is all 0 although it has pictures, they are of the second kind, and an
    answer with zeros would be part of the prompt, whose tokens see each other.
    """
    if key == "attention_mask":
        return 1
    return int(key == "token_type_ids" and not prompts.any())


def response_rows(completion_mask_BS: Tensor) -> Tensor:
    """Query positions that produce the response tokens, [B, R]: p - 1 for token p, -1 for padding.

    >>> response_rows(torch.tensor([[0, 0, 1, 1], [0, 1, 0, 0]]))
    tensor([[ 1,  2],
            [ 0, -1]])
    """
    is_producer_BT = completion_mask_BS[:, 1:].bool()
    T, longest = is_producer_BT.shape[1], max(int(is_producer_BT.sum(1).max()), 1)
    position_BT = torch.arange(T, device=is_producer_BT.device).expand_as(is_producer_BT)
    # Sorted, the positions of producers come first and the others, all T, after them.
    rows_BR = torch.where(is_producer_BT, position_BT, T).sort(1).values[:, :longest]
    return rows_BR.masked_fill(rows_BR == T, -1)
