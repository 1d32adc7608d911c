"""Sampling that does not depend on the batch: what a row samples is its own.

The Gumbel-max trick: the token with the largest `logit / temperature + g`, with independent g of
the standard Gumbel distribution, is distributed as the softmax says. Each answer has a generator of
its own for g, seeded by (seed, row, number of the sample), so that the same row gets the same
answers in a batch of any size and order.

Shapes: B answers, V vocabulary.
"""

import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import LogitsProcessor


def seed_of(*parts: object) -> int:
    """A seed of 63 bits for these values.

    >>> seed_of(7, "row", 0) == seed_of(7, "row", 0) != seed_of(7, "row", 1)
    True
    """
    digest = hashlib.blake2b(repr(parts).encode(), digest_size=8).digest()
    return int.from_bytes(digest) >> 1


class Gumbel(LogitsProcessor):
    """Scores whose greedy choice is a sample of the softmax at `temperature`.

    `seeds`: one for each answer of the batch. The last of the processors of a `generate`.
    """

    def __init__(self, seeds: Sequence[int], temperature: float, device: torch.device) -> None:
        self._generators = [torch.Generator(device).manual_seed(seed) for seed in seeds]
        self._temperature = temperature

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Called by `generate` once a step, before the token is chosen."""
        assert len(self._generators) == len(scores), "a generator for each answer"
        # In 64 bits, where the device has them: among as many draws as a large vocabulary needs,
        # 24 bits would give the smallest value, and so the largest g, to some token now and then.
        wide = torch.float32 if scores.device.type == "mps" else torch.float64
        waits_BV = torch.empty(scores.shape, dtype=wide, device=scores.device)
        for waits_V, generator in zip(waits_BV, self._generators, strict=True):
            waits_V.exponential_(generator=generator)
        # -log of an exponential variable is a Gumbel variable.
        gumbel_BV = waits_BV.clamp_min_(torch.finfo(wide).eps).log_().neg_()
        return gumbel_BV.add_(scores / self._temperature)
