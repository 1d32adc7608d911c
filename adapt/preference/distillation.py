"""How far the policy has left the base's own distributions at the answers of plain rows.

    L_keep = mean over rows of mean over answer tokens of KL(ref || pi)

where ref and pi are the distributions that produce a token, given all tokens before it. It is
Learning without Forgetting (arXiv 1606.09282, section 3, at temperature 1; the cross-entropy there
is more by the entropy of ref, a constant): the base teaches the policy what the base said, be it
right or wrong, and an untouched policy has no loss.

The base's distributions are worked out once, before the first step (`adapt/preference/teacher.py`).
Of a vocabulary of up to `WHOLE` tokens all are kept, and the loss is exact. Of a larger one the
`TOP` most likely ones are kept and the mass of all others together, 516 bytes a token: the loss is
then the divergence of the two distributions in which these others are one event. It is 0 where the
whole one is 0, it is never above it (the data processing inequality), and what it leaves out is how
the others divide their mass among themselves.

Shapes: A rows, S sequence, N answer tokens of all rows, V vocabulary, K kept columns.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

WHOLE = 512
TOP = 64
FLOOR = -1e4  # nats: what a model rules out by a logit of -inf has a mass of 0 here, too


@dataclasses.dataclass(frozen=True)
class Distributions:
    """Of answer tokens, in order: `ids_NK` are the kept tokens, None where all are.

    `log_probs_NK` are their log-probabilities in nats; where not all tokens are kept, a last column
    has that of all others together.
    """

    log_probs_NK: Tensor
    ids_NK: Tensor | None = None

    def to(self, device: torch.device) -> "Distributions":
        """The same on a device."""
        ids_NK = None if self.ids_NK is None else self.ids_NK.to(device)
        return Distributions(self.log_probs_NK.to(device), ids_NK)

    @classmethod
    def joined(cls, several: Sequence["Distributions"]) -> "Distributions":
        """Those of several, one after another."""
        ids = [one.ids_NK for one in several if one.ids_NK is not None]
        return cls(
            torch.cat([one.log_probs_NK for one in several]), torch.cat(ids) if ids else None
        )

    @classmethod
    def of(cls, logits_NV: Tensor) -> "Distributions":
        """What is kept of the distributions that these logits give."""
        log_probs_NV = _log_probs(logits_NV)
        is_whole = log_probs_NV.shape[1] <= WHOLE
        ids_NK = None if is_whole else log_probs_NV.topk(TOP).indices
        return cls(_kept(log_probs_NV, ids_NK), ids_NK)

    def divergence(self, logits_NV: Tensor) -> Tensor:
        """KL(these || those of the logits) of each token, [N], in nats.

        Even odds against 4 to 1: log(0.5 / 0.8) / 2 + log(0.5 / 0.2) / 2 = 0.2231.

        >>> reference = Distributions(torch.tensor([[0.5, 0.5]]).log())
        >>> round(reference.divergence(torch.tensor([[0.8, 0.2]]).log()).item(), 4)
        0.2231
        """
        own_NK = _kept(_log_probs(logits_NV), self.ids_NK)
        return F.kl_div(own_NK, self.log_probs_NK, reduction="none", log_target=True).sum(-1)


def _log_probs(logits_NV: Tensor) -> Tensor:
    """In nats, of at least float32."""
    return logits_NV.to(torch.promote_types(logits_NV.dtype, torch.float32)).log_softmax(-1)


def _kept(log_probs_NV: Tensor, ids_NK: Tensor | None) -> Tensor:
    """The columns of the kept tokens and, where these are not all, that of the others together."""
    log_probs_NV = log_probs_NV.clamp_min(FLOOR)
    if ids_NK is None:
        return log_probs_NV
    others_NV = log_probs_NV.scatter(1, ids_NK, -torch.inf)
    kept = (log_probs_NV.gather(1, ids_NK), others_NV.logsumexp(1, keepdim=True))
    return torch.cat(kept, dim=1)


def distillation(reference: Distributions, logits_NV: Tensor, counts: Sequence[int]) -> Tensor:
    """L_keep of the module docstring, in nats; `counts` are the answer tokens of each row."""
    rows = reference.divergence(logits_NV).split([*counts])
    return torch.stack([row.mean() for row in rows]).mean()


def answer_logits(model: nn.Module, batch: Mapping[str, Any]) -> Tensor:
    """The logits that produce the tokens of answers, row after row, [N, V].

    `batch` is padded on the right and has `completion_mask` [A, S] beside what the model takes.
    """
    is_answer_AS = batch["completion_mask"] > 0
    # The token before an answer produces its first one; nobody asks for logits before.
    first = int(is_answer_AS.int().argmax(1).min()) - 1
    inputs = {key: value for key, value in batch.items() if key != "completion_mask"}
    kept = is_answer_AS.shape[1] - first
    logits_ATV = model(**inputs, use_cache=False, logits_to_keep=kept).logits
    return logits_ATV[:, :-1][is_answer_AS[:, first + 1 :]]
