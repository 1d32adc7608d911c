"""Answers followed while they are made: each token, and its signals as soon as they are known.

The values are those that `Answers.signals` has afterwards. Two of the signals compare a token with
the first K, so these come together: in the step that makes the K-th, or when the last answer of the
batch has ended. Every later token comes in its own step, or with others of some milliseconds.

Whoever follows may end an answer, and say whether the next token of it may be steered.

Shapes: B answers, T generated tokens so far, n new ones, L layers, N image tokens, K anchor tokens.
"""

import dataclasses
import time
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
    """Pass to one `generate(stopping_criteria=[...])`, and call `finish` when it has returned.

    Args:
        observer, confidence: of the same generation.
        counts_B: image tokens of each answer's own prompt.
        ends: the end tokens. room: how many tokens each answer may have.
        start: where the answers begin in the sequences.
        hear: called with what is new, at most once in `pace` seconds: signals of several tokens
            cost what those of one cost.
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
        pace: float = 0.0,
    ) -> None:
        self._observer, self._confidence, self._counts_B = observer, confidence, counts_B
        self._K, self._start, self._hear, self._ends = observer.anchor_tokens, start, hear, ends
        self.room = [*room]
        """How many tokens each answer may have; less where whoever hears it has ended it."""
        self._pace, self._latest = pace, time.monotonic()
        self._heard = 0
        self._over: list[bool] = []
        self._over_B = torch.zeros(0)  # of `_over`
        self._first: Attention | None = None  # of the tokens that came together

    def __call__(self, input_ids: Tensor, scores: Tensor, **_: object) -> Tensor:
        """Which answers are over, [B]; called by `generate` when a token has been chosen.

        Those that end by an end token `generate` knows itself.
        """
        steps = input_ids.shape[1] - self._start
        # Not in the middle of a group of steps: values would hang on the clock.
        is_known = steps >= self._first_known and self._observer.trace.ends_group(steps)
        if is_known and time.monotonic() - self._latest >= self._pace:
            self._tell(input_ids)
        over = [room <= steps for room in self.room]
        if over != self._over:
            self._over, self._over_B = over, torch.tensor(over, device=input_ids.device)
        return self._over_B

    def finish(self, sequences_BS: Tensor) -> None:
        """Let the rest be heard, when `generate` has returned."""
        if sequences_BS.shape[1] - self._start > self._heard:
            self._tell(sequences_BS)

    def _tell(self, sequences_BS: Tensor) -> None:
        steps = sequences_BS.shape[1] - self._start
        ruling = self._hear(self._news(sequences_BS))
        self._heard, self._latest = steps, time.monotonic()
        for b, is_over in enumerate(ruling.ends):
            self.room[b] = min(self.room[b], steps) if is_over else self.room[b]
        if ruling.steered:
            may_B = torch.tensor(ruling.steered, device=sequences_BS.device)
            self._observer.may_steer(may_B)

    @property
    def _first_known(self) -> int:
        """After how many steps the first signals are known: responsiveness takes two maps."""
        return max(self._K, 2)

    def _news(self, sequences_BS: Tensor) -> Heard:
        since, tokens_BT = self._heard, sequences_BS[:, self._start :]
        said_BT = is_said(tokens_BT, self._ends, self.room)
        first = self._first is None
        attention, values = self._early(said_BT) if first else self._later(said_BT, since)
        n = tokens_BT.shape[1] - since
        return Heard(
            start=since,
            tokens_BT=tokens_BT[:, since:],
            said_BT=said_BT[:, since:],
            logprob_BT=self._confidence.logprobs(sequences_BS, since),
            fired_BT=attention.fired_BTL[:, -n:].float().mean(2),
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
            self._observer.trace.between(since - 1, said_BT.shape[1]),
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


def is_said(tokens_BT: Tensor, ends: Sequence[int], room: Sequence[int]) -> Tensor:
    """Where the tokens of answers are, before the first end token, `room` at most.

    >>> is_said(torch.tensor([[5, 1, 5], [5, 5, 5]]), ends=[1], room=[3, 2]).int()
    tensor([[1, 0, 0],
            [1, 1, 0]], dtype=torch.int32)
    """
    is_end_BT = torch.isin(tokens_BT, torch.tensor(ends, device=tokens_BT.device))
    step_BT = torch.ones_like(tokens_BT).cumsum(1)
    room_B1 = torch.tensor(room, device=tokens_BT.device)[:, None]
    return (is_end_BT.cumsum(1) == 0) & (step_BT <= room_B1)
