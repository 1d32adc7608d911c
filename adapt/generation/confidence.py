"""How probable each generated token was, without keeping the logits of every step.

The token's own probability is the plainest early warning there is, and so the baseline that
attention has to beat (`adapt/evaluation/early_warning.py`). It stands before the processor that
samples (`adapt/generation/sampling.py`), so the probability is the model's own there, too.

Shapes: B answers, S positions so far, V vocabulary, T generated tokens, n steps.
"""

import inspect

import torch
from torch import Tensor
from transformers import LogitsProcessor

KEPT = 2**22  # scores that wait, 16 MiB, or one step's


class Confidence(LogitsProcessor):
    """Pass to one `generate(logits_processor=[...])`; `logprobs` afterwards. It changes no score.

    Which token a step has chosen is seen at a later step, in `input_ids`: so the scores of some
    steps are kept, and looked at together. Nothing waits for the device.
    """

    def __init__(self) -> None:
        self._start = -1  # where the answers begin
        self._waiting: list[Tensor] = []  # scores per step: [B, V]
        self._known: list[Tensor] = []  # of some steps: [n, B]
        self._steps = 0  # of `_known`

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Called by `generate` once a step, before the token is chosen."""
        if self._start < 0:
            self._start = input_ids.shape[1]
        if (len(self._waiting) + 1) * scores.numel() > KEPT:
            self._look(input_ids)
        self._waiting.append(scores)
        return scores

    # `generate` asks for the signature at every step, which would take as long as the rest of it.
    __call__.__signature__ = inspect.signature(__call__)  # type: ignore[attr-defined]

    def logprobs(self, sequences_BS: Tensor, since: int = 0) -> Tensor:
        """Log-probability (nats) of what `generate` returned, [B, T]; void after an answer ends.

        `since`: leaves out so many tokens. It may be asked while the answers are made, once a token
        has been chosen.
        """
        self._look(sequences_BS)
        return torch.cat(self._known)[since:].T

    def _look(self, sequences_BS: Tensor) -> None:
        """What was chosen where scores wait; a device may have run a step further."""
        tokens_nB = sequences_BS[:, self._start + self._steps :].T
        n = min(len(self._waiting), len(tokens_nB))
        if n:
            self._known.append(chosen(torch.stack(self._waiting[:n]), tokens_nB[:n]))
            self._steps += n
            del self._waiting[:n]


def chosen(scores: Tensor, tokens: Tensor) -> Tensor:
    """log softmax of the scores, [..., V], at one token each, [...], in fp32.

    >>> chosen(torch.tensor([[0.0, 0.0], [1.0, -torch.inf]]), torch.tensor([1, 0])).exp()
    tensor([0.5000, 1.0000])
    """
    return scores.float().log_softmax(-1).gather(-1, tokens[..., None])[..., 0]
