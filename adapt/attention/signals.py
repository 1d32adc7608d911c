"""Attention-degradation signals, one value per generated token: docs/method.md, section 1.

Three of them are named in the paper (arXiv 2606.31054) [paper]; the formulas are ours [ours].

Shapes: B batch, T generated tokens, L layers, N image tokens. `maps_BTLN` is attention to the
image, mean over heads.
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


def visual_mass(maps_BTLN: Tensor) -> Tensor:
    """M_t = mean over layers and heads of the attention on the image, [B, T]; in [0, 1]."""
    return maps_BTLN.sum(-1).mean(2)


def focus(maps_BTLN: Tensor) -> Tensor:
    """F_t = 1 - entropy(A_hat_t) / log N per layer, then mean: [B, T]; 1: one patch, 0: uniform."""
    N = maps_BTLN.shape[-1]
    if N == 1:
        return torch.ones(maps_BTLN.shape[:2], dtype=maps_BTLN.dtype, device=maps_BTLN.device)
    log_n = torch.log(torch.tensor(float(N), device=maps_BTLN.device))
    return (1 - entropy(normalised(maps_BTLN)) / log_n).mean(2)


def amc(maps: Tensor, anchor: Tensor) -> Tensor:
    """S_AMC(A || w) = sum_i a_i^2 w_i / (sum_i a_i)^2 over the last dimension [paper]."""
    return (maps.square() * anchor).sum(-1) / maps.sum(-1).square().clamp_min(EPS)


def relative_amc(maps_BTLN: Tensor, anchor_BN: Tensor, anchor_tokens: int) -> Tensor:
    """S_AMC of each token over its mean on the first K (`anchor_tokens`), mean over layers: [B, T].

    Relative, because its absolute value depends on N: at most 0.09 on nine patches of 576 [ours].
    """
    score_BTL = amc(maps_BTLN, anchor_BN[:, None, None])
    return (score_BTL / score_BTL[:, :anchor_tokens].mean(1, keepdim=True).clamp_min(EPS)).mean(2)


def responsiveness(maps_BTLN: Tensor) -> Tensor:
    """R_t = total variation between A_hat_t and A_hat_{t-1}, layers averaged: [B, T]; R_0 = R_1."""
    p_BTN = normalised(maps_BTLN.mean(2))
    change_BT = 0.5 * (p_BTN[:, 1:] - p_BTN[:, :-1]).abs().sum(-1)
    first_B1 = change_BT[:, :1] if change_BT.shape[1] else torch.zeros_like(p_BTN[:, :1, 0])
    return torch.cat([first_B1, change_BT], 1)


def drift(maps_BTLN: Tensor, anchor_BN: Tensor) -> Tensor:
    """Jensen-Shannon divergence of A_hat_t (layers averaged) and anchor: [B, T], at most log 2."""
    p, q = normalised(maps_BTLN.mean(2)), normalised(anchor_BN)[:, None]
    m = (p + q) / 2
    return entropy(m) - (entropy(p) + entropy(q)) / 2


def all_signals(maps_BTLN: Tensor, anchor_BN: Tensor, anchor_tokens: int) -> dict[str, Tensor]:
    """Every signal of `SIGNALS`, each [B, T]. `anchor_tokens`: K, what the anchor was read from."""
    return {
        "mass": visual_mass(maps_BTLN),
        "focus": focus(maps_BTLN),
        "amc": relative_amc(maps_BTLN, anchor_BN, anchor_tokens),
        "responsiveness": responsiveness(maps_BTLN),
        "drift": drift(maps_BTLN, anchor_BN),
    }
