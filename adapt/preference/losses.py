"""The terms of the ADAPT loss that are not TRL's, as pure functions of tensors. docs/method.md, section 4.

    L_ADAPT = w_vag L_VAG + w_dpo L_DPO(same image) + w_sft L_SFT(chosen) + w_attn L_attn

L_DPO and L_SFT are TRL's own ("sigmoid" and "sft" of `DPOConfig.loss_type`), computed by its trainer. Each function
returns the loss and the figures one wants to plot.

Shapes: B pairs, L layers, R response tokens (padded), N image tokens.
"""

import torch.nn.functional as F
from torch import Tensor

from adapt.attention.signals import EPS, amc


def vag_dpo(
    chosen_B: Tensor, rejected_B: Tensor, ref_chosen_B: Tensor, ref_rejected_B: Tensor, beta: float
) -> tuple[Tensor, dict[str, Tensor]]:
    """VAG-DPO [paper, arXiv 2606.31054]: DPO's sigmoid (arXiv 2305.18290, equation 7) with one image per branch.

        L_VAG = -log sigmoid(beta * ([log pi(y_w | v+, x) - log ref(y_w | v+, x)]
                                   - [log pi(y_l | v-, x) - log ref(y_l | v-, x)]))

    Args:
        chosen_B, ref_chosen_B: log-probability of the factual answer under the anchor-enhanced image v+.
        rejected_B, ref_rejected_B: log-probability of the hallucinated answer under the noise-injected image v-.
        beta: how far the policy may move from the reference.

    A hand count: with chosen -1, rejected -3, both references -2 and beta 0.5 the margin is 1 - (-1) = 2 and the loss
    -log sigmoid(1) = 0.3133.

    >>> import torch
    >>> loss, seen = vag_dpo(*(torch.tensor([x]) for x in (-1.0, -3.0, -2.0, -2.0)), beta=0.5)
    >>> round(loss.item(), 4), seen["vag/margins"].item()
    (0.3133, 1.0)
    """
    chosen_reward, rejected_reward = beta * (chosen_B - ref_chosen_B), beta * (rejected_B - ref_rejected_B)
    margin_B = chosen_reward - rejected_reward
    seen = {
        "vag/rewards_chosen": chosen_reward,
        "vag/rewards_rejected": rejected_reward,
        "vag/margins": margin_B,
        "vag/accuracies": (margin_B > 0).float(),
    }
    return -F.logsigmoid(margin_B).mean(), {key: value.detach().mean() for key, value in seen.items()}


def attention_supervision(
    maps_BLRN: Tensor, mask_BR: Tensor, anchor_BN: Tensor, first: int
) -> tuple[Tensor, dict[str, Tensor]]:
    """Attention supervision [form ours]: on chosen answers, neither signal may fall below its early level.

        L_attn = mean_{t > K} relu(1 - M_t / sg(M_early)) + mean_{t > K} relu(1 - S_t / sg(S_early))

    M: visual mass, S: S_AMC with the anchor, both per layer; early: the mean over the first K tokens, without
    gradient (sg), so that the loss lifts late attention and cannot lower the early one. Answers of K tokens or fewer
    contribute nothing.

    Args:
        maps_BLRN: attention of response tokens to the image, mean over heads, with gradient.
        mask_BR: true at real response tokens. anchor_BN: the stored anchors.
        first: K.
    """
    real_BR = mask_BR.to(maps_BLRN.dtype)
    early_BR, late_BR = real_BR.clone(), real_BR.clone()
    early_BR[:, first:], late_BR[:, :first] = 0, 0
    mass_BLR = maps_BLRN.sum(-1)
    match_BLR = amc(maps_BLRN, anchor_BN[:, None, None].detach())
    mass, mass_ratio = _decay(mass_BLR, early_BR, late_BR)
    match, match_ratio = _decay(match_BLR, early_BR, late_BR)
    return mass + match, {
        "attn/mass": mass.detach(),
        "attn/fidelity": match.detach(),
        "attn/mass_late_early": mass_ratio,
        "attn/fidelity_late_early": match_ratio,
    }


def _decay(value_BLR: Tensor, early_BR: Tensor, late_BR: Tensor) -> tuple[Tensor, Tensor]:
    """Mean of relu(1 - late / early level) over late tokens and layers, and the mean ratio itself (for plots)."""
    level_BL = (value_BLR * early_BR[:, None]).sum(-1) / early_BR.sum(-1).clamp_min(1)[:, None]
    ratio_BLR = value_BLR / level_BL.detach().clamp_min(EPS)[:, :, None]
    late_BLR = late_BR[:, None].expand_as(ratio_BLR)
    count = late_BLR.sum().clamp_min(1)
    return (F.relu(1 - ratio_BLR) * late_BLR).sum() / count, ((ratio_BLR * late_BLR).sum() / count).detach()
