"""Answers followed while they are made: each token, and its signals as soon as they are known.

The values are those that `Answers.signals` has afterwards. Two of the signals compare a token with
the first K, so these come together: in the step that makes the K-th, or in which the last answer of
the batch ends. Every later token comes in its own step.

Whoever follows may end an answer, and say whether the next token of it may be steered.

Shapes: B answers, T generated tokens so far, n new ones, L layers, N image tokens, K anchor tokens.
"""

import dataclasses
from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from transformers import StoppingCriteria

from adapt.attention import signals
from adapt.attention.trace import Attention
from adapt.generation.confidence import Confidence
from adapt.generation.steer import DecodeObserver


@dataclasses.dataclass(frozen=True, kw_only=True)
class Heard:
    """The tokens from `start` on, n of each answer; those of `said_BT` are its own.

    `said_BT` is false from an answer's end on. `fired_BT`: share of layers that were steered.
    """

    start: int
    tokens_BT: Tensor
    said_BT: Tensor
    logprob_BT: Tensor
    fired_BT: Tensor
    heat_BTN: Tensor
    signals: dict[str, Tensor]


@dataclasses.dataclass(frozen=True)
class Ruling:
    """What is to become of the answers: which end here, and which may be steered from here on.

    Each has a value for every answer; empty: none ends, all may be steered.
    """

    ends: Sequence[bool] = ()
    steered: Sequence[bool] = ()


Hear = Callable[[Heard], Ruling]


class Following(StoppingCriteria):
    """Pass to one `generate(stopping_criteria=[...])`.

    Args:
        observer, confidence: of the same generation.
        counts_B: image tokens of each answer's own prompt.
        ends: the end tokens. room: how many tokens each answer may have.
        start: where the answers begin in the sequences.
        hear: called with what is new.
    """

    def __init__(
        self,
        observer: DecodeObserver,
        confidence: Confidence,
        counts_B: Tensor,
        ends: Sequence[int],
        room: Sequence[int],
        start: int,
        hear: Hear,
    ) -> None:
        self._observer, self._confidence, self._counts_B = observer, confidence, counts_B
        self._K, self._start, self._hear = observer.anchor_tokens, start, hear
        self._ends = torch.tensor(ends, device=counts_B.device)
        self._room_B = torch.tensor(room, device=counts_B.device)
        self.length_B = torch.zeros_like(self._room_B)
        """How many tokens each answer has so far."""
        self._is_over_B = torch.zeros_like(self._room_B, dtype=torch.bool)
        self._heard = 0
        self._said: list[Tensor] = []  # per step: [B]
        self._first: Attention | None = None  # of the tokens that came together

    def __call__(self, input_ids: Tensor, scores: Tensor, **_: object) -> Tensor:
        """Which answers are over, [B]; called by `generate` when a token has been chosen."""
        # 1. Whose token it is: of an answer that goes on, an end token is none.
        is_end_B = torch.isin(input_ids[:, -1], self._ends)
        said_B = ~(self._is_over_B | is_end_B)
        self._said.append(said_B)
        self.length_B += said_B
        self._is_over_B |= is_end_B | (self.length_B >= self._room_B)
        # 2. What is known by now, and what follows from it.
        steps, is_last = len(self._said), bool(self._is_over_B.all())
        if steps >= self._first_known or is_last:
            self._rule(self._hear(self._news(input_ids, steps)))
            self._heard = steps
        return self._is_over_B

    @property
    def _first_known(self) -> int:
        """After how many steps the first signals are known: responsiveness takes two maps."""
        return max(self._K, 2)

    def _rule(self, ruling: Ruling) -> None:
        device = self._is_over_B.device
        if ruling.ends:
            self._is_over_B |= torch.tensor(ruling.ends, device=device)
        if ruling.steered:
            self._observer.may_steer(torch.tensor(ruling.steered, device=device))

    def _news(self, input_ids: Tensor, steps: int) -> Heard:
        since, said_BT = self._heard, torch.stack(self._said, 1)
        first = self._first is None
        attention, values = self._early(said_BT) if first else self._later(said_BT, since)
        n = steps - since
        return Heard(
            start=since,
            tokens_BT=input_ids[:, self._start + since :],
            said_BT=said_BT[:, since:],
            logprob_BT=self._confidence.logprobs(input_ids, self._start, since),
            fired_BT=attention.fired_BTL[:, -n:].float().mean(2),
            heat_BTN=attention.heat_BTN[:, -n:],
            signals=values,
        )

    def _early(self, said_BT: Tensor) -> tuple[Attention, dict[str, Tensor]]:
        """The first tokens: as if the answers ended here."""
        self._first = self._observer.trace.upto(said_BT)
        return self._first, self._first.signals(self._counts_B, said_BT, self._K)

    def _later(self, said_BT: Tensor, since: int) -> tuple[Attention, dict[str, Tensor]]:
        """Later ones: against the first K, whose mean and anchor do not change any more.

        The attention is that of the token before, too, which responsiveness compares with.
        """
        assert self._first is not None and since >= self._K
        K, known, steps = (
            self._K,
            self._first,
            self._observer.trace.between(since - 1, len(self._said)),
        )
        amc_BTL = torch.cat([known.amc_BTL[:, :K], steps.amc_BTL[:, 1:]], 1)
        every_BT = torch.cat([said_BT[:, :K], said_BT[:, since:]], 1)
        return steps, {
            "mass": signals.visual_mass(steps.mass_BTL)[:, 1:],
            "focus": signals.focus(steps.entropy_BTL, self._counts_B)[:, 1:],
            "amc": signals.relative_amc(amc_BTL, every_BT, K)[:, K:],
            "responsiveness": signals.responsiveness(steps.heat_BTN, said_BT)[:, 1:],
            "drift": signals.drift(steps.heat_BTN, known.anchor_BN)[:, 1:],
        }
