"""Attention-supervised inference (ASI): generation that watches its attention to the image and pulls it back.

Paper (arXiv 2606.31054): where the match of a token's attention with the anchor falls below a threshold, add
`alpha * log(w_i + eps)` to the image logits of that step before the softmax. Ours: the threshold is relative to the
mean match of the K anchor tokens, per layer (an absolute one would fire at every step), and w is scaled to mean 1, so
that the bias moves attention between patches and keeps the mass on the image at its level.

Shapes: B batch, H heads, S source positions, N image tokens, L layers, T generated tokens, D head size.
"""

import dataclasses

import torch
from torch import Tensor

from adapt.attention.anchor import Grid, visual_anchor
from adapt.attention.capture import Call, at_columns, last_row
from adapt.attention.signals import amc
from adapt.params import require

EPS = 1e-3


@dataclasses.dataclass(frozen=True, kw_only=True)
class SteerConfig:
    """Section `steer` of params.yaml."""

    alpha: float
    tau: float

    def __post_init__(self) -> None:
        require(self.alpha >= 0, "alpha", f"must not be negative, got {self.alpha}")
        require(self.tau >= 0, "tau", f"must not be negative, got {self.tau}")


class DecodeObserver:
    """Observer for `generate`: attention of every generated token to the image, and steering when it is asked for.

    Args:
        columns_BN: image-token positions in the (left-padded) prompts, -1 for padding.
        layers: L.
        first: K, the tokens that the anchor is read from; steering starts after them.
        grid: rows and columns of the patch grid; debias_N: `debias_mask` of this model and grid.
        steer: None only watches.
    """

    def __init__(
        self, columns_BN: Tensor, layers: int, first: int, grid: Grid, debias_N: Tensor, steer: SteerConfig | None
    ) -> None:
        self.columns_BN, self.layers, self.first, self.grid, self.debias_N = columns_BN, layers, first, grid, debias_N
        self.steer = steer if steer is not None and steer.alpha > 0 and steer.tau > 0 else None
        self._steps: list[list[Tensor]] = []  # per step, per layer: [B, N]
        self._fired: list[list[Tensor]] = []  # per step, per layer: [B] bool
        self._bias_BN: Tensor | None = None
        self._anchor_BN: Tensor | None = None
        self._floor_LB: list[Tensor] = []

    def observe(self, call: Call) -> Tensor:
        """Called once per layer and step; only the last query row generates a token."""
        if call.layer == 0:
            self._steps.append([])
            self._fired.append([])
            self._match_batch(call.query_BHSD.shape[0])
        s_BH1S = last_row(call)
        a_BN = at_columns(s_BH1S, self.columns_BN)[:, 0]
        output, fired = call.output_BSHD, torch.zeros(len(a_BN), dtype=torch.bool, device=a_BN.device)
        if self._bias_BN is not None and self._anchor_BN is not None:
            fired = amc(a_BN, self._anchor_BN) < self._floor_LB[call.layer]
            steered_BH1S = self._biased(s_BH1S, self._bias_BN)
            output = torch.where(fired[:, None, None, None], _attend(steered_BH1S, call), output)
            a_BN = torch.where(fired[:, None], at_columns(steered_BH1S, self.columns_BN)[:, 0], a_BN)
        self._steps[-1].append(a_BN)
        self._fired[-1].append(fired)
        if self.steer and call.layer == self.layers - 1 and len(self._steps) == self.first:
            self._fix_anchor(self.steer)
        return output

    def _match_batch(self, batch: int) -> None:
        """`num_return_sequences` repeats every prompt; its image columns follow."""
        repeats = batch // len(self.columns_BN)
        if repeats > 1:
            self.columns_BN = self.columns_BN.repeat_interleave(repeats, 0)

    def _biased(self, s_BH1S: Tensor, bias_BN: Tensor) -> Tensor:
        index = self.columns_BN.clamp_min(0)[:, None, None].expand(-1, s_BH1S.shape[1], -1, -1)
        return s_BH1S.scatter_add(-1, index, bias_BN[:, None, None].expand_as(index))

    def _fix_anchor(self, steer: SteerConfig) -> None:
        maps_BTLN = self.maps()
        anchor_BN = visual_anchor(maps_BTLN.mean(1), self.grid, self.debias_N)
        floor_BL = steer.tau * amc(maps_BTLN, anchor_BN[:, None, None]).mean(1)
        w_BN = anchor_BN * (self.columns_BN >= 0).sum(1, keepdim=True)
        self._bias_BN = steer.alpha * (w_BN + EPS).log() * (self.columns_BN >= 0)
        self._anchor_BN, self._floor_LB = anchor_BN, list(floor_BL.unbind(1))

    def maps(self) -> Tensor:
        """Attention to the image, mean over heads: [B, T, L, N]."""
        return torch.stack([torch.stack(layers, 1) for layers in self._steps], 1)

    def fired(self) -> Tensor:
        """Where steering stepped in: [B, T, L] bool."""
        return torch.stack([torch.stack(layers, 1) for layers in self._fired], 1)


def _attend(s_BH1S: Tensor, call: Call) -> Tensor:
    """softmax(s) V for the last query row, [B, 1, H, D] in the output's dtype."""
    B, H = s_BH1S.shape[:2]
    K = call.value_BKSD.shape[1]
    p = s_BH1S.softmax(-1).view(B, K, H // K, -1)
    out_BHD = torch.matmul(p, call.value_BKSD.float()).reshape(B, H, -1)
    return out_BHD[:, None].to(call.output_BSHD.dtype)
