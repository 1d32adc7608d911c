"""The ADAPT loss: its weights, and its terms of likelihoods. docs/method.md, section 4.

    L_ADAPT = w_vag L_VAG + w_dpo L_DPO(same image)
            + w_sft L_SFT(chosen) + w_anchor L_anchor(chosen) + w_attn L_attn
            + w_keep L_keep(plain rows)

The terms are pure functions of tensors and return the loss and the metrics one wants to plot;
L_attn is in `adapt/preference/supervision.py`. Every term is a mean over pairs of something that
one pair decides alone: batches of equal size add up to the same loss, however a step is divided
into them. In training, same-image DPO is TRL's (`train.loss_type` names its form), of which `dpo`
is the sigmoid form. The terms are added up in `AdaptTrainer._compute_loss`.

Shapes: B pairs, R response tokens of a pair (padded with 0).
"""

import dataclasses

import torch.nn.functional as F
from torch import Tensor

from adapt.preference.settings import Config

Metrics = dict[str, Tensor]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Weights:
    """Weights of the loss terms; a term that is not named takes no part."""

    vag: float = 0.0
    dpo: float = 0.0
    sft: float = 0.0
    anchor: float = 0.0
    attn: float = 0.0
    keep: float = 0.0

    @classmethod
    def of(cls, config: Config) -> "Weights":
        """Those of a configuration."""
        return cls(
            vag=config.w_vag,
            dpo=config.w_dpo,
            sft=config.w_sft,
            anchor=config.w_anchor,
            attn=config.w_attn,
            keep=config.w_keep,
        )

    def passes(self) -> tuple[str, ...]:
        """The passes of a step that have a term."""
        plain = self.dpo + self.sft + self.anchor + self.attn
        weight = {"plain": plain, "guided": self.vag, "kept": self.keep}
        return tuple(name for name, total in weight.items() if total > 0)


def dpo(
    chosen_B: Tensor, rejected_B: Tensor, ref_chosen_B: Tensor, ref_rejected_B: Tensor, beta: float
) -> tuple[Tensor, Metrics]:
    """DPO (arXiv 2305.18290, equation 7), and guidance: the same of two answers under two images.

        L = -log sigmoid(beta * ([log pi(y | v, x) - log ref(y | v, x)]
                               - [log pi(y' | v', x) - log ref(y' | v', x)]))

        term                 y    v    y'   v'   source
        L_DPO                y_w  v    y_l  v    arXiv 2305.18290
        L_VAG, paper         y_w  v+   y_l  v-   VAG-DPO [paper], arXiv 2606.31054
        L_VAG, same_text     y_w  v    y_w  v-   mDPO's CoPO, arXiv 2406.11839
        L_VAG, same_image    y_w  v-   y_l  v-   P2-DPO's robustness term

    v+ is the anchor-enhanced image, v- the noisy one. With the same text the answer cannot explain
    the margin, and with the same image the picture cannot; in the paper's form either may.

    Args:
        chosen_B, ref_chosen_B: log-probability of y under v.
        rejected_B, ref_rejected_B: log-probability of y' under v'.
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


def anchored(chosen_B: Tensor, ref_chosen_B: Tensor, beta: float) -> Tensor:
    """L_anchor = -log sigmoid(beta * [log pi(y_w | v, x) - log ref(y_w | v, x)]).

    mDPO's anchored preference (AncPO, arXiv 2406.11839) with an anchor of 0. A margin can grow
    while both answers become less likely; this term asks the chosen one not to.

    A hand count: with the chosen answer at -1, its reference at -2 and beta 0.5 the loss is
    -log sigmoid(0.5) = 0.4741, and log 2 = 0.6931 where nothing has moved.

    >>> import torch
    >>> round(anchored(torch.tensor([-1.0]), torch.tensor([-2.0]), beta=0.5).item(), 4)
    0.4741
    """
    return -F.logsigmoid(beta * (chosen_B - ref_chosen_B)).mean()


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
