"""How probable each generated token was, without keeping the logits of every step.

The token's own probability is the plainest early warning there is, and so the baseline that
attention has to beat (`adapt/evaluation/early_warning.py`). It stands before the processor that
samples (`adapt/generation/sampling.py`), so the probability is the model's own there, too.

Shapes: B answers, S positions so far, V vocabulary, T generated tokens.
"""

import torch
from torch import Tensor
from transformers import LogitsProcessor


class Confidence(LogitsProcessor):
    """Pass to one `generate(logits_processor=[...])`; `logprobs` afterwards. It changes no score.

    A step's choice is known at the next step, as the last of `input_ids`: so one step's scores are
    kept, and the last step is closed by `logprobs`. Nothing waits for the device.
    """

    def __init__(self) -> None:
        self._scores_BV: Tensor | None = None
        self._chosen: list[Tensor] = []  # per step: [B]

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Called by `generate` once a step, before the token is chosen."""
        if self._scores_BV is not None:
            self._chosen.append(chosen(self._scores_BV, input_ids[:, -1]))
        self._scores_BV = scores
        return scores

    def logprobs(self, sequences_BS: Tensor, start: int, since: int = 0) -> Tensor:
        """Log-probability (nats) of what `generate` returned, [B, T]; void after an answer ends.

        `start`: where the answers begin in the sequences; `since`: leaves out so many tokens. A
        device may have run a step further. It may be asked while the answers are made, once a token
        has been chosen.
        """
        assert self._scores_BV is not None, "after a token"
        steps = [*self._chosen[since:], chosen(self._scores_BV, sequences_BS[:, -1])]
        return torch.stack(steps, 1)[:, : sequences_BS.shape[1] - start - since]


def chosen(scores_BV: Tensor, token_B: Tensor) -> Tensor:
    """log softmax of the scores at one token each, [B], in fp32.

    >>> chosen(torch.tensor([[0.0, 0.0], [1.0, -torch.inf]]), torch.tensor([1, 0])).exp()
    tensor([0.5000, 1.0000])
    """
    return scores_BV.float().log_softmax(-1).gather(1, token_B[:, None])[:, 0]
