"""The terms of the ADAPT loss as pure functions of tensors. docs/method.md, section 4.

    L_ADAPT = w_vag L_VAG + w_dpo L_DPO(same image) + w_sft L_SFT(chosen) + w_attn L_attn

Each function returns the loss and the metrics one wants to plot. Every term is a mean over pairs of
something that one pair decides alone: batches of equal size add up to the same loss, however a step
is divided into them. In training, same-image DPO is TRL's (`train.loss_type` names its form), of
which `dpo` is the sigmoid form. The terms are added up in `AdaptTrainer._compute_loss`.

Shapes: B pairs, L layers, R response tokens and N image tokens of a pair (padded with 0).
"""

import dataclasses

import torch.nn.functional as F
from torch import Tensor

from adapt.attention.signals import EPS, amc

Metrics = dict[str, Tensor]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Weights:
    """Weights of the loss terms."""

    vag: float
    dpo: float
    sft: float
    attn: float

    def passes(self) -> tuple[str, ...]:
        """The passes of a step that have a term."""
        plain = self.dpo + self.sft + self.attn > 0
        return (*(["plain"] if plain else []), *(["guided"] if self.vag > 0 else []))


def dpo(
    chosen_B: Tensor, rejected_B: Tensor, ref_chosen_B: Tensor, ref_rejected_B: Tensor, beta: float
) -> tuple[Tensor, Metrics]:
    """DPO (arXiv 2305.18290, equation 7); VAG-DPO [paper, arXiv 2606.31054]: an image per branch.

        L_DPO = -log sigmoid(beta * ([log pi(y_w | v, x) - log ref(y_w | v, x)]
                                   - [log pi(y_l | v, x) - log ref(y_l | v, x)]))
        L_VAG = -log sigmoid(beta * ([log pi(y_w | v+, x) - log ref(y_w | v+, x)]
                                   - [log pi(y_l | v-, x) - log ref(y_l | v-, x)]))

    Args:
        chosen_B, ref_chosen_B: log-probability of the factual answer, for VAG under the
            anchor-enhanced image v+.
        rejected_B, ref_rejected_B: log-probability of the hallucinated answer, for VAG under the
            noisy image v-.
        beta: how far the policy may move from the reference.

    A hand count: with chosen -1, rejected -3, both references -2 and beta 0.5 the margin is 1 -
    (-1) = 2 and the loss -log sigmoid(1) = 0.3133.

    >>> import torch
    >>> loss, metrics = dpo(*(torch.tensor([x]) for x in (-1.0, -3.0, -2.0, -2.0)), beta=0.5)
    >>> round(loss.item(), 4), metrics["margins"].item(), metrics["displacement"].item()
    (0.3133, 1.0, 1.0)
    """
    chosen_reward_B = beta * (chosen_B - ref_chosen_B)
    rejected_reward_B = beta * (rejected_B - ref_rejected_B)
    margin_B = chosen_reward_B - rejected_reward_B
    per_pair = {
        "rewards_chosen": chosen_reward_B,
        "rewards_rejected": rejected_reward_B,
        "margins": margin_B,
        "accuracies": (margin_B > 0).float(),
    }
    metrics = {key: value_B.detach().mean() for key, value_B in per_pair.items()}
    return -F.logsigmoid(margin_B).mean(), metrics | displacement(chosen_B, ref_chosen_B)


def displacement(chosen_B: Tensor, ref_chosen_B: Tensor) -> Metrics:
    """Likelihood displacement (arXiv 2410.08847): how far the chosen answers themselves have moved.

    `displacement`: mean of log pi(y_w) - log ref(y_w) in nats, negative when they became less
    likely; `displaced`: the share of pairs whose chosen answer did.

    >>> import torch
    >>> metrics = displacement(torch.tensor([-1.0, -5.0]), torch.tensor([-2.0, -2.0]))
    >>> metrics["displacement"].item(), metrics["displaced"].item()
    (-1.0, 0.5)
    """
    moved_B = (chosen_B - ref_chosen_B).detach()
    return {"displacement": moved_B.mean(), "displaced": (moved_B < 0).float().mean()}


def sft(log_probs_BR: Tensor, mask_BR: Tensor) -> Tensor:
    """L_SFT = mean over pairs of -log pi(y_w | v, x) / |y_w| (arXiv 2404.19733, equation 2).

    `mask_BR` is true at the chosen answers' real tokens, of which every row has at least one.

    >>> import torch
    >>> mask = torch.tensor([[True, True], [True, False]])
    >>> sft(torch.tensor([[-1.0, -3.0], [-4.0, -9.0]]), mask).item()
    3.0
    """
    real_BR = mask_BR.to(log_probs_BR.dtype)
    return -((log_probs_BR * real_BR).sum(1) / real_BR.sum(1)).mean()


def attention_supervision(
    maps_BLRN: Tensor, mask_BR: Tensor, anchor_BN: Tensor, anchor_tokens: int
) -> tuple[Tensor, Metrics]:
    """Attention supervision [form ours]: no signal of chosen answers may fall below its early one.

        L_attn = mean_{t > K} relu(1 - M_t / sg(M_early)) + mean_{t > K} relu(1 - S_t / sg(S_early))

    M: visual mass, S: S_AMC with the anchor, both per layer; early: the mean over the first K
    tokens, without gradient (sg), so that the loss lifts late attention and cannot lower the early
    one. The means are over the late tokens of an answer and its layers, then over answers; those of
    K tokens or fewer contribute nothing.

    Metrics, beside the two halves: `*_late_early`, the mean ratio itself; `*_clipped`, the share of
    late positions that keep their early level and so have no gradient; `empty`, the share of
    answers without a late token.

    Args:
        maps_BLRN: attention of response tokens to the image, mean over heads, with gradient.
        mask_BR: true at real response tokens. anchor_BN: the stored anchors.
        anchor_tokens: K.
    """
    # 1. Real tokens are early up to the K-th, late from there on.
    late_BR = mask_BR.to(maps_BLRN.dtype)
    early_BR = late_BR.clone()
    early_BR[:, anchor_tokens:], late_BR[:, :anchor_tokens] = 0, 0
    # 2. Two signals of each token and layer: how much attention the image gets, and whether it lies
    #    where the anchor says.
    mass_BLR = maps_BLRN.sum(-1)
    amc_BLR = amc(maps_BLRN, anchor_BN[:, None, None].detach())
    # 3. Either may not fall below its early level.
    mass_loss, mass_metrics = _decay(mass_BLR, early_BR, late_BR)
    amc_loss, amc_metrics = _decay(amc_BLR, early_BR, late_BR)
    metrics = {f"mass{key}": value for key, value in mass_metrics.items()}
    metrics |= {f"amc{key}": value for key, value in amc_metrics.items()}
    return mass_loss + amc_loss, metrics | {"empty": (late_BR.sum(1) == 0).float().mean()}


def _decay(value_BLR: Tensor, early_BR: Tensor, late_BR: Tensor) -> tuple[Tensor, Metrics]:
    """Mean of relu(1 - late / early level), and the metrics of `attention_supervision`."""
    # 1. The level to keep is the early mean of each answer and layer. It has no gradient, or the
    #    cheapest way to a small loss would be to lower it.
    level_BL = (value_BLR * early_BR[:, None]).sum(-1) / early_BR.sum(-1).clamp_min(1)[:, None]
    ratio_BLR = value_BLR / level_BL.detach().clamp_min(EPS)[:, :, None]
    # 2. Weights that make a sum the mean over an answer's late tokens and layers, so that all
    #    answers count alike whatever their length. Without a late token all are 0: no decay.
    layers = ratio_BLR.shape[1]
    weight_BR = late_BR / late_BR.sum(1, keepdim=True).clamp_min(1)
    weight_BLR = weight_BR[:, None].expand_as(ratio_BLR) / layers
    # 3. A hinge: attention above its early level is no better than at it.
    loss = (F.relu(1 - ratio_BLR) * weight_BLR).sum((1, 2)).mean()
    # 4. An answer without a late token counts as one that keeps its level.
    ratio_BLR, none_B = ratio_BLR.detach(), late_BR.sum(1) == 0
    return loss, {
        "": loss.detach(),
        "_late_early": ((ratio_BLR * weight_BLR).sum((1, 2)) + none_B).mean(),
        "_clipped": (((ratio_BLR >= 1) * weight_BLR).sum((1, 2)) + none_B).mean(),
    }
