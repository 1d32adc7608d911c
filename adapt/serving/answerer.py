"""The one core that answers behind every door: a registered version, loaded, that is asked.

It generates as stage `answer` does (`adapt/generation/answer.py`), with the debias masks
and the rule of steering that the version carries, so that a greedy answer is the stage's, token for
token. What is added is the risk of every token, by the version's detector, and what a policy makes
of it.
"""

import copy
import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from adapt.attention.places import places_of
from adapt.attention.support import picture_map
from adapt.generation.answer import Answers, Decoding, answer
from adapt.generation.asked import AnsweredAs
from adapt.generation.debias import Debias
from adapt.generation.following import Heard, Ruling
from adapt.generation.settings import SteerConfig
from adapt.generation.written import Written
from adapt.metrics.detection import Detector
from adapt.models.device import generation_dtype, resolve
from adapt.models.load import load_model, load_processor
from adapt.models.prompts import end_tokens, prompt_version
from adapt.models.settings import Device
from adapt.params import require
from adapt.serving import bundle
from adapt.serving.asked import Answer, Asked, Hear, Token
from adapt.serving.bundle import Bundle, Served
from adapt.serving.spoken import Row, Spoken, Vocabulary

PLAIN_ANCHOR, PLAIN_LONGEST = 5, 512  # of a model that nothing is known of
PACE = 0.05  # seconds
VALUES = Token._fields[3:-1]  # what is known of a token besides its text and its risk


class Answerer:
    """A model that is asked; not for several threads at once.

    `pace`: seconds between tokens that are told, at least; none under policy `steer`, where each
    decides about the next.
    """

    def __init__(
        self,
        model: Any,
        processor: Any,
        known: Bundle | None,
        version: str = "",
        pace: float = PACE,
    ) -> None:
        self.model, self.processor, self.version = model, processor, version
        self._ends = end_tokens(model, processor)
        self.served: Served | None = known.served if known else None
        served = self.served
        self.detector: Detector | None = known.detector if known else None
        self.detector_version = ""  # of one that was fitted again; "" is the model's own
        self.vocabulary: Vocabulary | None = known.vocabulary if known else None
        self.steer: SteerConfig | None = served.steer if served and served.steer.acts else None
        self.anchor_tokens = served.answered.anchor.anchor_tokens if served else PLAIN_ANCHOR
        self.max_new_tokens = served.answered.max_new_tokens if served else PLAIN_LONGEST
        self.pace = pace
        self._debias: Debias | None = None
        if known and served:
            how: AnsweredAs = served.answered
            self._debias = Debias(model, processor, how.questions, how.anchor, how.seed)
            self._debias.load(known.debias)

    @classmethod
    def open(
        cls, folder: Path, device: Device = "auto", version: str = "", pace: float = PACE
    ) -> "Answerer":
        """The model of a version's folder, or of any that `save_pretrained` wrote.

        InputError in one line where it cannot be loaded, or is not what it was judged as.
        """
        known, place = bundle.read(folder), resolve(device)
        model, processor = (
            load_model(folder, place, generation_dtype(place)),
            load_processor(folder),
        )
        if known:
            is_same = prompt_version(processor) == known.served.prompt
            problem = "its prompt is not the one that it was judged with"
            require(is_same, f"{folder}", f"{problem}; register the model again")
        return cls(model, processor, known, version, pace)

    def warned_by(self, detector: Detector | None, version: str) -> "Answerer":
        """The same model with another detector, which knows the same words."""
        other = copy.copy(self)
        other.detector = detector if self.vocabulary else None
        other.detector_version = version
        return other

    def answer(self, asked: Sequence[Asked], hear: Hear | None = None) -> list[Answer]:
        """The answers to some questions, made at once where they are decoded alike.

        `hear` is called with tokens as they are made: those of the first K come together, because
        their signals are known together. Of policy `retry` they come when the answer to keep is
        known, of `stop` when the word that they belong to is whole.
        """
        answers: dict[int, Answer] = {}
        # 1. Once as asked.
        for rows in _groups(asked, lambda one: (one.policy == "steer", one.temperature)):
            of = [asked[i] for i in rows]
            rule = self.steer if of[0].policy == "steer" else None
            told = _only(hear, rows, [one.policy != "retry" for one in of])
            answers |= zip(rows, self._pass(of, rule, told, gated=rule is not None), strict=True)
        # 2. What came out too risky again, steered; the less risky one of the two is kept.
        again = [i for i, one in answers.items() if self._is_retried(asked[i], one)]
        for part in _groups([asked[i] for i in again], lambda one: one.temperature):
            rows = [again[k] for k in part]
            for i, other in zip(
                rows, self._pass([asked[i] for i in rows], self.steer), strict=True
            ):
                first = answers[i]
                best = min(first, other, key=lambda one: one.risk or 0.0)
                answers[i] = dataclasses.replace(best, passes=2)
        # 3. Whoever waited for the one to keep.
        for i in sorted(answers):
            if hear is not None and asked[i].policy == "retry":
                hear(i, answers[i].tokens)
        return [answers[i] for i in range(len(asked))]

    def _is_retried(self, asked: Asked, answer: Answer) -> bool:
        risky = answer.risk is not None and answer.risk >= asked.threshold
        return asked.policy == "retry" and self.steer is not None and risky

    def _pass(
        self,
        asked: Sequence[Asked],
        rule: SteerConfig | None,
        hear: Hear | None = None,
        gated: bool = False,
    ) -> list[Answer]:
        """One generation for questions that are decoded alike."""
        longest = [
            min(one.max_new_tokens or self.max_new_tokens, self.max_new_tokens) for one in asked
        ]
        decoding = Decoding(
            anchor_tokens=self.anchor_tokens,
            max_new_tokens=max(longest),
            steer=rule,
            debias=self._debias,
            waits=gated,
            pace=0.0 if gated else self.pace,
            temperature=asked[0].temperature,
        )
        listening = _Listening(self, asked, hear, gated)
        answers = answer(
            self.model,
            self.processor,
            [one.images for one in asked],
            [one.question for one in asked],
            decoding,
            ids=[one.id if one.seed is None else f"seed {one.seed}" for one in asked],
            histories=[one.history for one in asked],
            longest=longest,
            hear=listening.heard,
        )
        listening.close()
        return [self._answer(one, answers, b, listening.spoken[b]) for b, one in enumerate(asked)]

    def _answer(self, asked: Asked, answers: Answers, b: int, spoken: Spoken) -> Answer:
        length, tokens = int(answers.mask_BT[b].sum()), tuple(spoken.tokens)
        behind = answers.tokens_BT[b, length : length + 1].tolist()
        named = spoken.named()
        risks = [one.risk for one in named if one.risk is not None]
        maps, grids = self._maps(answers, b, len(tokens)) if asked.maps else (None, [])
        return Answer(
            id=asked.id,
            text=spoken.text,
            tokens=tokens,
            named=named,
            risk=max(risks, default=0.0) if self.detector else None,
            finish=spoken.finish(is_complete=bool(behind) and behind[0] in self._ends),
            policy=asked.policy,
            steered=_mean([token.steered for token in tokens]),
            mass=_mean([token.mass for token in tokens]),
            prompt_tokens=int(answers.prompt_B[b]),
            passes=1,
            detector=self.detector_version,
            maps=maps,
            grids=grids,
        )

    def _maps(self, answers: Answers, b: int, length: int) -> tuple[Any, list[tuple[int, int]]]:
        """Where each token looked, on each picture, and the grids of these maps."""
        places = places_of(self.model.config, self.processor, answers.sizes[b])
        heat_TN = answers.heat_BTN[b, :length].float().cpu()
        of_pictures = picture_map(heat_TN, answers.layout.of(b), places)
        by_token = zip(*(heat_TM for heat_TM, _ in of_pictures), strict=True)
        return [list(one) for one in by_token], [grid for _, grid in of_pictures]


class _Listening:
    """Follows one generation: tokens with their risk, and what the policies make of it."""

    def __init__(
        self, of: Answerer, asked: Sequence[Asked], hear: Hear | None, gated: bool
    ) -> None:
        self._of, self._asked, self._hear, self._gated = of, asked, hear, gated
        tokenizer = of.processor.tokenizer
        self.spoken = [Spoken(one, Written.by(tokenizer), of.vocabulary) for one in asked]
        self._over = [False] * len(asked)
        self._risky = [False] * len(asked)

    def heard(self, heard: Heard) -> Ruling:
        """New tokens of the generation."""
        said = heard.said_BT.sum(1).tolist()
        # 1. The new tokens of each answer that goes on.
        for b, rows in enumerate(self._rows(heard)):
            spoken = self.spoken[b]
            if said[b] and not self._over[b]:
                spoken.add(rows[: said[b]])
                if spoken.tokens:
                    self._risky[b] = (spoken.tokens[-1].risk or 0.0) >= self._asked[b].threshold
            # 2. An answer that has ended has a last word.
            is_last = said[b] < len(rows)
            if is_last and not self._over[b]:
                spoken.settle()
            self._tell(b, is_last)
            self._over[b] |= is_last or spoken.ended_by_risk or spoken.is_left
        # 3. Which end here, and which may be steered from here on.
        return Ruling(ends=self._over, steered=self._risky if self._gated else ())

    def close(self) -> None:
        """The generation is over: those that were cut at their length have a last word, too."""
        for b, spoken in enumerate(self.spoken):
            if not self._over[b]:
                spoken.settle()
                self._tell(b, is_last=True)

    def _tell(self, b: int, is_last: bool) -> None:
        spoken = self.spoken[b]
        if self._hear is None or spoken.is_left:
            return
        tokens = spoken.told(is_last=is_last or spoken.ended_by_risk)
        if tokens:
            spoken.is_left = not self._hear(b, tokens)

    def _rows(self, heard: Heard) -> list[list[Row]]:
        """The new tokens of each answer, and what stands behind its end."""
        named = heard.signals | {"logprob": heard.logprob_BT, "steered": heard.fired_BT}
        # 1. One transfer for all of it: everything else waits for the device.
        values_BTV = torch.stack([named[name].float() for name in VALUES], 2).cpu().double().numpy()
        # 2. The risk of all of them.
        detector = self._of.detector
        rows = values_BTV.tolist()
        if detector is not None:
            by_name = dict(zip(VALUES, values_BTV.reshape(-1, len(VALUES)).T, strict=True))
            risk_BT = detector.risk(by_name).reshape(values_BTV.shape[:2]).tolist()
        else:
            risk_BT = [[None] * len(row) for row in rows]
        # 3. As rows.
        return [
            [(token, (*of, risk)) for token, of, risk in zip(*row, strict=True)]
            for row in zip(heard.tokens_BT.tolist(), rows, risk_BT, strict=True)
        ]


def _groups(asked: Sequence[Asked], key: Callable[[Asked], object]) -> list[list[int]]:
    """The numbers of questions that are decoded alike."""
    groups: dict[object, list[int]] = {}
    for i, one in enumerate(asked):
        groups.setdefault(key(one), []).append(i)
    return list(groups.values())


def _only(hear: Hear | None, rows: Sequence[int], is_heard: Sequence[bool]) -> Hear | None:
    """`hear` for a part of the questions, by their numbers; of the others nothing is heard."""
    if hear is None:
        return None
    return lambda b, tokens: hear(rows[b], tokens) if is_heard[b] else True


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0
