"""Weights of the tokens that decide a preference. docs/method.md, section 4.

In the margins of preference losses the log-probability of an answer is a weighted sum,

    log pi(y | v, x) = sum_t w_t log pi(y_t | v, x, y_<t),    w_t = w inside the spans, else 1

as in DDPO (RLHF-V, arXiv 2312.00849), which divides it by sum_t w_t besides; the sum here is not
divided, so that w = 1 is DPO. The same weights are in the reference.

Shapes: A answers, S sequence.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from adapt.models.prompts import Range
from adapt.pairs.deciding import inside
from adapt.pairs.record import Span


def token_weights(
    attention_mask_AS: Tensor,
    ranges: Sequence[Sequence[Range]],
    spans: Sequence[Sequence[Span]],
    weight: float,
) -> Tensor:
    """`weight` at the answers' tokens inside their spans, 1 elsewhere: [A, S].

    Args:
        attention_mask_AS: of sequences that end with an answer, padded on the right.
        ranges: the characters of each answer's tokens.
    """
    rows = []
    for length, own, deciding in zip(attention_mask_AS.sum(1).tolist(), ranges, spans, strict=True):
        answer = torch.tensor([weight if one else 1.0 for one in inside(own, deciding)])
        rows.append(torch.cat([torch.ones(length - len(answer)), answer]))
    return pad_sequence(rows, batch_first=True, padding_value=1.0)


def weighed(outputs: Any, weights_AS: Tensor | None) -> Any:
    """What the fused head says, its log-probabilities [rows, S - 1] times the weights.

    `weights_AS` may have more rows, behind. Without weights the same outputs.
    """
    if weights_AS is None:
        return outputs
    # Place s of the outputs is about the token at s + 1.
    weights = weights_AS[: len(outputs.log_probs), 1:]
    return dataclasses.replace(outputs, log_probs=outputs.log_probs * weights)
