"""A bias on the image logits of generated tokens: the mask that brings it in, and what it makes of
attention that was read without it.

What is the same for all steps is worked out once: a step of a layer costs a handful of operations,
which on a small model, or on a GPU that waits for its host, is what counts.

Shapes: B answers, H heads, S source positions, N image tokens, L layers.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from adapt.attention.capture import Call

IN_FLIGHT = 2**20  # numbers of layers that are computed together: 4 MiB, or one layer's
ROOM = 256  # positions that a row of biases is longer than asked: a cache grows by one


class Seen(NamedTuple):
    """A layer's attention without the bias, and for which answers it is there."""

    layer: int
    p_BHN: Tensor
    own_BH: Tensor
    on_B: Tensor


class ImageBias:
    """A fixed bias on the logits of image tokens, which is there for some of the answers.

    Args:
        bias_BN: what is added. columns_BN: where, among all positions; -1 at padding.
    """

    def __init__(self, bias_BN: Tensor, columns_BN: Tensor) -> None:
        is_real_BN = columns_BN >= 0
        self._bias_BN, self._columns_BN = bias_BN * is_real_BN, columns_BN.clamp_min(0)
        self._gain_BN = self._bias_BN.expm1()
        self._rows_BS = bias_BN.new_zeros(len(bias_BN), 0)
        # Masks of this step as what they add, each with the mask, whose id is the key.
        self._added: dict[int, tuple[Tensor, Tensor]] = {}
        self._waiting: list[Seen] = []
        self._done: list[tuple[int, Tensor, Tensor]] = []

    def mask(self, call: Call, on_B: Tensor, dropped: int = 0) -> Tensor:
        """The call's mask with the bias where `on_B` is true, in the dtype of its query.

        [B, 1 or H, 1, S]. `dropped`: positions before the first key.
        """
        length, dtype = call.key_BKSD.shape[2], call.query_BHSD.dtype
        bias_B11S = self._row(dropped + length, dtype)[:, None, None, dropped:]
        on_B111 = on_B.to(dtype)[:, None, None, None]
        if call.mask is None:
            return bias_B11S * on_B111
        return torch.addcmul(self._addend(call.mask, length, dtype), bias_B11S, on_B111)

    def add(self, layer: int, p_BHN: Tensor, own_BH: Tensor, on_B: Tensor) -> None:
        """Attention of a layer without the bias, to the image and to the answer's own tokens.

        Layers of a step come in turn. What the bias makes of it is computed with its neighbours'.
        """
        seen = Seen(layer, p_BHN, own_BH, on_B)
        if self._waiting and not self._joins(seen):
            self._compute()
        self._waiting.append(seen)

    def computed(self) -> list[tuple[int, Tensor, Tensor]]:
        """(first layer, maps [L, B, N], attention to the answer so far [L, B]) with the bias.

        Of all layers that were added; both are means over heads. Nothing waits afterwards, and the
        step may end.
        """
        self._compute()
        self._added.clear()
        done, self._done = self._done, []
        return done

    def _joins(self, seen: "Seen") -> bool:
        """Whether a layer is computed with those that wait: it is their neighbour, and as large."""
        last, count = self._waiting[-1], len(self._waiting) + 1
        is_next = seen.layer == last.layer + 1 and seen.p_BHN.shape == last.p_BHN.shape
        return is_next and count * seen.p_BHN.numel() <= IN_FLIGHT

    def _compute(self) -> None:
        if not self._waiting:
            return
        layers, *seen = zip(*self._waiting, strict=True)
        self._waiting = []
        self._done.append((layers[0], *self.reweighted(*map(torch.stack, seen))))

    def reweighted(self, p_LBHN: Tensor, own_LBH: Tensor, on_LB: Tensor) -> tuple[Tensor, Tensor]:
        """Mean over heads of the softmax with the bias where `on_LB` is true, from the one without.

        softmax(s + b)_i = p_i e^{b_i} / sum_j p_j e^{b_j}, and the sum is
        1 + sum_j p_j (e^{b_j} - 1), which needs the image tokens alone. Returns that of the image
        tokens, [L, B, N], and the sum of that of the answer's own tokens, whose b is 0, [L, B].
        """
        gain_LB1N = (self._gain_BN * on_LB[..., None])[:, :, None]
        gained_LBHN = p_LBHN * gain_LB1N
        total_LBH1 = gained_LBHN.sum(-1, keepdim=True).add_(1)
        after_LBN = gained_LBHN.add_(p_LBHN).div_(total_LBH1).mean(2)
        return after_LBN, (own_LBH / total_LBH1[..., 0]).mean(2)

    def _row(self, length: int, dtype: torch.dtype) -> Tensor:
        """The biases of the first positions, 0 where no image token is: [B, S]."""
        if self._rows_BS.shape[1] < length:
            rows_BS = self._bias_BN.new_zeros(len(self._bias_BN), length + ROOM)
            self._rows_BS = rows_BS.scatter_add_(1, self._columns_BN, self._bias_BN).to(dtype)
        return self._rows_BS[:, :length]

    def _addend(self, mask: Tensor, length: int, dtype: torch.dtype) -> Tensor:
        """A mask as what is added to logits; layers share their masks, so that it is made once."""
        if mask.dtype != torch.bool:
            return mask[..., :length]
        if id(mask) not in self._added:
            nothing = mask.new_zeros((), dtype=dtype)
            self._added[id(mask)] = (mask, torch.where(mask[..., :length], nothing, -torch.inf))
        return self._added[id(mask)][1]
