"""Attention of generated tokens, computed for several steps at once.

A key stays what it is once its token has been read. So the attention of a token can be computed
some steps after it was made, with that of its neighbours: one product and one softmax a layer
instead of one for each step. On a small model, or on a GPU that waits for its host, that is most of
what watching costs; on a large one the keys are read from memory once for all of these steps.

Shapes: B answers, H heads, S source positions, N image tokens, D head size, n steps.
"""

from collections.abc import Iterator
from typing import TypeAlias

import torch
from torch import Tensor

from adapt.attention.capture import Call
from adapt.attention.rows import LOWEST, Columns, over_keys

Mask: TypeAlias = Tensor | None


class Deferred:
    """What waits to be computed: queries by layer, each of consecutive steps.

    Args:
        columns_BN: image-token positions, -1 at padding.
        start: where the answers begin in the sequences.
    """

    def __init__(self, columns_BN: Tensor, start: int) -> None:
        self._columns = Columns(columns_BN)
        self._start = start
        self._waiting: dict[int, _Layer] = {}

    def add(self, layer: int, step: int, call: Call, keys: Tensor) -> None:
        """A step of a layer; `keys` are all since the first position, those of earlier steps too.

        They are kept until the layer's next step has its own: no longer than the cache keeps them.
        """
        waiting = self._waiting.get(layer)
        if waiting is None:
            waiting = self._waiting[layer] = _Layer(step, call.scaling)
        waiting.queries.append(call.query_BHSD)
        waiting.masks.append(call.mask)
        waiting.keys = keys

    def computed(self) -> Iterator[tuple[int, int, Tensor, Tensor]]:
        """(layer, first step, maps [B, n, N], attention to the answer so far [B, n]) of each layer.

        Both are means over heads. Nothing waits afterwards.
        """
        waiting, self._waiting = self._waiting, {}
        masks: dict[tuple[int, ...], Mask] = {}
        for layer, of in waiting.items():
            assert of.keys is not None
            # 1. Layers of one kind share their masks, so that these are put together once.
            key = (of.keys.shape[2], *map(id, of.masks))
            if key not in masks:
                masks[key] = _together(of.masks, of.keys)
            # 2. All rows at once, and the mean over heads first: what follows is smaller then.
            query_BHnD = torch.cat(of.queries, 2)
            p_BnS = over_keys(query_BHnD, of.keys, masks[key], of.scaling).mean(1)
            yield layer, of.step, self._columns.of(p_BnS), p_BnS[:, :, self._start :].sum(2)


class _Layer:
    """Consecutive steps of a layer from `step` on."""

    __slots__ = ("keys", "masks", "queries", "scaling", "step")

    def __init__(self, step: int, scaling: float) -> None:
        self.step, self.scaling = step, scaling
        self.queries: list[Tensor] = []
        self.masks: list[Mask] = []
        self.keys: Tensor | None = None


def _together(masks: list[Mask], keys_BKSD: Tensor) -> Mask:
    """One mask for consecutive steps, to be added: [B or 1, H or 1, n, S], fp32.

    The last step sees all S keys, each one before it a key less. None of the masks hides nothing
    of these.
    """
    n, S = len(masks), keys_BKSD.shape[2]
    if n == 1:
        return masks[0]
    # 1. What a step's own mask hides.
    given = [(step, mask) for step, mask in enumerate(masks) if mask is not None]
    like = given[0][1].shape[:2] if given else (1, 1)
    rows = torch.zeros(*like, n, S, device=keys_BKSD.device)
    for step, mask in given:
        length = S - n + 1 + step
        own = mask[:, :, -1, :length]
        is_bool = own.dtype == torch.bool
        rows[:, :, step, :length] = torch.where(own, 0.0, LOWEST) if is_bool else own
    # 2. And what came after it.
    is_later = torch.ones(n, S, dtype=torch.bool, device=rows.device).triu(S - n + 1)
    return rows.masked_fill_(is_later, LOWEST)
