"""Attention-degradation signals, one value per generated token: docs/method.md, section 1.

Three of them are named in the paper (arXiv 2606.31054) [paper]; the formulas are ours [ours].

They are computed from what is kept of an answer's attention (`adapt/attention/trace.py`). What
stands behind the end of an answer is void, and never enters the value of a token before it.

Shapes: B batch, T generated tokens, L layers, N image tokens.
"""

import torch
from torch import Tensor

EPS = 1e-12


def normalised(a: Tensor) -> Tensor:
    """`A / sum_i A`: attention as a distribution over the image tokens (last dimension)."""
    return a / a.sum(-1, keepdim=True).clamp_min(EPS)


def entropy(p: Tensor) -> Tensor:
    """Shannon entropy in nats over the last dimension."""
    return -(p * p.clamp_min(EPS).log()).sum(-1)


def amc(maps: Tensor, anchor: Tensor) -> Tensor:
    """S_AMC(A || w) = sum_i a_i^2 w_i / (sum_i a_i)^2 over the last dimension [paper]."""
    return (maps.square() * anchor).sum(-1) / maps.sum(-1).square().clamp_min(EPS)


def visual_mass(mass_BTL: Tensor) -> Tensor:
    """M_t = mean over layers of the attention on the image (its mean over heads), [B, T]."""
    return mass_BTL.mean(2)


def focus(entropy_BTL: Tensor, counts_B: Tensor) -> Tensor:
    """F_t = 1 - entropy(A_hat_t) / log N per layer, then mean: [B, T]; 1: one patch, 0: uniform.

    `counts_B` is N of each answer's own picture; of one token the focus is 1.
    """
    log_n_B = counts_B.float().log().clamp_min(EPS)
    return (1 - entropy_BTL / log_n_B[:, None, None]).mean(2)


def relative_amc(amc_BTL: Tensor, mask_BT: Tensor, anchor_tokens: int) -> Tensor:
    """S_AMC of each token over its mean on the first K (`anchor_tokens`), mean over layers: [B, T].

    Relative, because its absolute value depends on N: at most 0.09 on nine patches of 576 [ours].
    `mask_BT`: the tokens of an answer; a shorter one is compared with the mean of all of its own.
    """
    weight_BK = mask_BT[:, :anchor_tokens].to(amc_BTL.dtype)
    total_BL = (amc_BTL[:, :anchor_tokens] * weight_BK[:, :, None]).sum(1)
    mean_BL = total_BL / weight_BK.sum(1, keepdim=True).clamp_min(1)
    return (amc_BTL / mean_BL.clamp_min(EPS)[:, None]).mean(2)


def responsiveness(heat_BTN: Tensor, mask_BT: Tensor) -> Tensor:
    """R_t = total variation between A_hat_t and A_hat_{t-1}, layers averaged: [B, T].

    R_0 = R_1, and 0 for an answer of one token.
    """
    p_BTN = normalised(heat_BTN)
    change_BT = 0.5 * (p_BTN[:, 1:] - p_BTN[:, :-1]).abs().sum(-1)
    if not change_BT.shape[1]:
        return torch.zeros_like(p_BTN[:, :, 0])
    return torch.cat([change_BT[:, :1] * mask_BT[:, 1:2], change_BT], 1)


def drift(heat_BTN: Tensor, anchor_BN: Tensor) -> Tensor:
    """Jensen-Shannon divergence of A_hat_t (layers averaged) and anchor: [B, T], at most log 2."""
    p, q = normalised(heat_BTN), normalised(anchor_BN)[:, None]
    m = (p + q) / 2
    return entropy(m) - (entropy(p) + entropy(q)) / 2
