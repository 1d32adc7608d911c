"""How likely a model finds answers that were given, beside answers of its own.

Preference training moves a model among the answers that it gives. Answers that it would not give
(off-policy) have few of its probabilities to move: both then become less likely, the chosen one
too, which is the usual reason for a training that fails. What "likely" means depends on the model
and on what is asked, so the answers are compared with the model's own to the same questions.

Shapes: T tokens of an answer, V vocabulary.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import torch

from adapt.data.schema import Example, Preference
from adapt.generation.answer import Decoding
from adapt.generation.batches import Prompt, answered, prompt_of
from adapt.pairs.forced import log_probs_of, spoken
from adapt.pairs.settings import PairsConfig
from adapt.progress import track

ROWS = 64  # of which the given answers are read
OWN = 16  # of which the model is asked as well
FAR = 1.0  # nats per token: each token is e times less likely than one of the model's own


@dataclasses.dataclass(frozen=True, kw_only=True)
class Likelihood:
    """Mean log-probability per token (nats), mean over answers, end tokens left out.

    `own` are answers that the model draws at temperature 1; `rows` and `own_rows` say of how many
    rows the means are.
    """

    chosen: float
    rejected: float
    own: float
    rows: int
    own_rows: int

    def sentence(self) -> str:
        """What the figures mean."""
        figures = f"chosen answers {self.chosen:.2f}, rejected ones {self.rejected:.2f}"
        against = f"answers that the base draws itself {self.own:.2f}"
        return (
            f"log-probability per token under the base, in nats: {figures}, {against}; the nearer"
            " the given answers are to its own, the more training has to work with"
        )

    def warning(self) -> str:
        """Why the data looks off-policy, or ""."""
        gap = self.own - self.chosen
        if gap <= FAR:
            return ""
        times = f"{2.718281828459045**gap:.3g} times"
        return (
            f"the chosen answers look off-policy: a token of theirs is {times} less likely to the"
            f" base than one of its own (more than e, {FAR:g} nat). Training may make both answers"
            " less likely; more train.w_sft, training on the chosen answers first, or pairs that"
            " are sampled from the base (pairs.source: both) help"
        )


def few(rows: Sequence[Preference]) -> Sequence[Preference]:
    """Rows that are spread evenly over these; of few rows, all."""
    return rows[:: -(-len(rows) // ROWS)]


def measured(
    config: PairsConfig, model: Any, processor: Any, rows: Sequence[Preference]
) -> Likelihood:
    """Of `few` of these rows."""
    some = few(rows)
    sides: dict[str, list[float]] = {"chosen": [], "rejected": []}
    for row in track(some, "how likely the base finds the answers"):
        for side, values in sides.items():
            logprob_T = token_log_probs(model, processor, prompt_for(row, side), getattr(row, side))
            values.append(float(logprob_T.mean()))
    own = some[:: -(-len(some) // OWN)]
    said = _own(config, model, processor, own)
    means = {side: sum(values) / len(values) for side, values in sides.items()}
    return Likelihood(**means, own=sum(said) / len(said), rows=len(some), own_rows=len(own))


def prompt_for(row: Example | Preference, side: str) -> Prompt:
    """What an answer is about: a rejected one may have pictures of its own."""
    if side == "rejected" and isinstance(row, Preference) and row.rejected_images:
        row = dataclasses.replace(row, images=row.rejected_images)
    return prompt_of(row)


def token_log_probs(model: Any, processor: Any, prompt: Prompt, answer: str) -> torch.Tensor:
    """How probable the model holds each token of an answer, [T], in nats."""
    (tokens,) = spoken(model, processor, [answer])
    return log_probs_of(model, processor, prompt, tokens)


def _own(
    config: PairsConfig, model: Any, processor: Any, rows: Sequence[Preference]
) -> list[float]:
    """The same mean of an answer that the model draws to each row; an empty one has none."""
    decoding = Decoding(
        anchor_tokens=config.anchor.anchor_tokens,
        max_new_tokens=config.max_new_tokens,
        temperature=1.0,
        seed=config.seed,
    )
    means: list[float] = []
    asked = (decoding, config.batch, prompt_of, "pairs.batch")
    for _, answers in answered(model, processor, rows, *asked):
        total_B = (answers.logprob_BT * answers.mask_BT).sum(1)
        counts_B = answers.mask_BT.sum(1)
        # An empty answer is the step that chose to end it.
        total_B = torch.where(counts_B > 0, total_B, answers.logprob_BT[:, 0])
        means += (total_B / counts_B.clamp_min(1)).tolist()
    return means
