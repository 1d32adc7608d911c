"""Attention supervision, as pure functions of attention maps. docs/method.md, section 4.

`train.attn_target` says what attention is held to. In all of its forms a hinge keeps visual mass M,
the attention that the image gets, at its early level; beside it,

    early    mean_{t > K} relu(1 - S_t / sg(S_early))    S: S_AMC with the anchor; also a hinge
    anchor   mean_t KL(anchor || A_hat_t)                the whole answer looks at the anchor [ours]
    boxes    mean_m KL(boxes(m) || A_hat_{t(m)})         a thing is looked at where it is, at the
                                                         step t(m) that names it

A_hat is attention as a distribution over the image tokens: a divergence says where to look and not
how much, which is why the hinge on M stays. Boxes are the target of EASE (arXiv 2605.30912).

Like the terms of `adapt/preference/losses.py` each is a mean over pairs of something that one pair
decides alone.

Shapes: B pairs, L layers, R response tokens, M mentions and N image tokens of a pair (padded; maps
and targets with 0, rows with -1).
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from adapt.attention.signals import EPS, amc, normalised
from adapt.preference.losses import Metrics


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
    early_BR, late_BR = _early_and_late(maps_BLRN, mask_BR, anchor_tokens)
    # Two signals of each token and layer: how much attention the image gets, and whether it lies
    # where the anchor says. Neither may fall below its early level.
    mass_loss, metrics = _kept_mass(maps_BLRN, early_BR, late_BR)
    amc_BLR = amc(maps_BLRN, anchor_BN[:, None, None].detach())
    amc_loss, amc_metrics = _decay(amc_BLR, early_BR, late_BR)
    return mass_loss + amc_loss, metrics | {f"amc{key}": m for key, m in amc_metrics.items()}


def anchor_supervision(
    maps_BLRN: Tensor, mask_BR: Tensor, anchor_BN: Tensor, flat_B: Tensor, anchor_tokens: int
) -> tuple[Tensor, Metrics]:
    """The hinge on visual mass, and mean_t KL(anchor || A_hat_t) over all tokens of an answer.

    Metrics, beside those of the hinge: `kl`, the divergence, in nats; `placed`, the share of
    answers whose anchor is a target. One that is the same everywhere is none: it would teach that
    all places are alike.

    Args:
        maps_BLRN, mask_BR, anchor_BN, anchor_tokens: as in `attention_supervision`.
        flat_B: true for an anchor that is the same everywhere.
    """
    mass_loss, metrics = _kept_mass(maps_BLRN, *_early_and_late(maps_BLRN, mask_BR, anchor_tokens))
    target_BN = normalised(anchor_BN).detach() * ~flat_B[:, None]
    kl_BR, real_BR = divergence(target_BN[:, None, None], maps_BLRN).mean(1), mask_BR.float()
    kl = ((kl_BR * real_BR).sum(1) / real_BR.sum(1).clamp_min(1)).mean()
    return mass_loss + kl, metrics | {"kl": kl.detach(), "placed": 1 - flat_B.float().mean()}


def box_supervision(
    maps_BLRN: Tensor,
    rows_BR: Tensor,
    producers_BM: Tensor,
    target_BMN: Tensor,
    anchor_tokens: int,
) -> tuple[Tensor, Metrics]:
    """The hinge on visual mass, and mean_m KL(boxes(m) || A_hat_{t(m)}) over an answer's mentions.

    Metrics, beside those of the hinge: `kl`, the divergence, in nats; `placed`, the share of
    mentions that have a target, 0 where nothing is mentioned; `mentions` of an answer.

    Args:
        maps_BLRN, anchor_tokens: as in `attention_supervision`.
        rows_BR: the positions that produce the response tokens.
        producers_BM: those that produce the first token of a mention; one that produces no token
            that is trained on has no say.
        target_BMN: `adapt.preference.boxes.box_target` of each mention, 0 where there is none.
    """
    levels = _early_and_late(maps_BLRN, rows_BR >= 0, anchor_tokens)
    mass_loss, metrics = _kept_mass(maps_BLRN, *levels)
    # 1. The attention of the steps that name something.
    is_it_BMR = (rows_BR[:, None] == producers_BM[:, :, None]) & (producers_BM >= 0)[:, :, None]
    is_named_BM, index_BM = is_it_BMR.any(-1), is_it_BMR.int().argmax(-1)
    L, N = maps_BLRN.shape[1], maps_BLRN.shape[3]
    maps_BLMN = maps_BLRN.gather(2, index_BM[:, None, :, None].expand(-1, L, -1, N))
    # 2. Its divergence from the target, where there is one; all answers count alike, however much
    #    they mention.
    placed_BM = (is_named_BM & target_BMN.any(-1)).float()
    kl_BM = divergence(target_BMN[:, None], maps_BLMN).mean(1) * placed_BM
    kl, named = (kl_BM.sum(1) / placed_BM.sum(1).clamp_min(1)).mean(), is_named_BM.float().sum()
    metrics |= {"kl": kl.detach(), "placed": placed_BM.sum() / named.clamp_min(1)}
    return mass_loss + kl, metrics | {"mentions": named / len(maps_BLRN)}


def divergence(target: Tensor, maps: Tensor) -> Tensor:
    """KL(target || A_hat) in nats over the last dimension; 0 for a target of zeros.

    `target` sums to 1 or is 0, `maps` is attention before it is normalised.

    >>> target, maps = torch.tensor([[1.0, 0.0], [0.5, 0.5]]), torch.tensor([0.2, 0.2])
    >>> [round(value, 4) for value in divergence(target, maps).tolist()]  # log 2, and none
    [0.6931, 0.0]
    """
    log_a_hat = normalised(maps).clamp_min(EPS).log()
    return (torch.xlogy(target, target) - target * log_a_hat).sum(-1)


# ---- what no signal may fall below ---------------------------------------------------------------


def _early_and_late(
    maps_BLRN: Tensor, mask_BR: Tensor, anchor_tokens: int
) -> tuple[Tensor, Tensor]:
    """Real tokens are early (1) up to the K-th, late (1) from there on."""
    late_BR = mask_BR.to(maps_BLRN.dtype)
    early_BR = late_BR.clone()
    early_BR[:, anchor_tokens:], late_BR[:, :anchor_tokens] = 0, 0
    return early_BR, late_BR


def _kept_mass(maps_BLRN: Tensor, early_BR: Tensor, late_BR: Tensor) -> tuple[Tensor, Metrics]:
    """The hinge on visual mass, and its metrics."""
    loss, metrics = _decay(maps_BLRN.sum(-1), early_BR, late_BR)
    named = {f"mass{key}": value for key, value in metrics.items()}
    return loss, named | {"empty": (late_BR.sum(1) == 0).float().mean()}


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
