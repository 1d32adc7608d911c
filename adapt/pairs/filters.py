"""Which pairs are not worth training on, as released data sets of preferences leave them out.

* `pairs.min_best`: a pair of two bad answers teaches the lesser evil. The better one has to be good
  itself (OViP, arXiv 2505.15963).
* `pairs.likelihood`: an answer that the base would hardly give leaves training little to move, and
  one that it is sure of nothing to learn (P2-DPO's filter on perplexity). Both have to be inside.
* `pairs.repeats`: an answer that says something twice is told by that.

Every filter has a value that lets all pass, and what each took is counted.
"""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

from adapt.data.schema import Example, Preference
from adapt.models.prompts import answer_tokens, end_tokens
from adapt.pairs.annotate import Answers, LeftOut
from adapt.pairs.beginning import begun_tokens
from adapt.pairs.deciding import words
from adapt.pairs.forced import log_probs_of
from adapt.pairs.likelihood import prompt_for
from adapt.pairs.settings import PairsConfig

OFF = {"min_best": "any", "likelihood": "any", "repeats": "keep"}
"""The value of each key that lets all pass."""
PART = 3  # words of a part of a sentence that is not said twice by chance


def active(config: PairsConfig) -> dict[str, object]:
    """The filters that may leave a pair out, with their values."""
    values = {name: getattr(config, name) for name in OFF}
    return {name: value for name, value in values.items() if value != OFF[name]}


@dataclasses.dataclass(frozen=True)
class Filters:
    """The filters of a configuration, with the model that is to be trained."""

    config: PairsConfig
    model: Any
    processor: Any

    def unrepeated(self, texts: Sequence[str]) -> Sequence[str]:
        """The texts that pairs may be made of."""
        if self.config.repeats == "keep":
            return texts
        return [text for text in texts if not repeats(text)]

    def left_out(self, row: Example | Preference, answers: Answers) -> LeftOut | None:
        """The first filter that a pair does not pass, None for one that passes all."""
        config, best = self.config, answers.chosen_score
        both = (answers.chosen, answers.rejected)
        if config.repeats == "drop" and any(map(repeats, both)):
            return LeftOut("repeats")
        # A score that nobody gave cannot be too low.
        if config.min_best != "any" and best is not None and best < config.min_best:
            return LeftOut("min_best")
        if config.likelihood != "any":
            low, high = config.likelihood
            if not all(low <= value <= high for value in self.likelihoods(row, answers)):
                return LeftOut("likelihood")
        return None

    def likelihoods(self, row: Example | Preference, answers: Answers) -> Iterator[float]:
        """Mean log-probability per token of either answer, in nats.

        Of the tokens that are trained: behind what both begin with, and with the one that ends it.
        """
        ends = end_tokens(self.model, self.processor)
        both = (answers.chosen, answers.rejected)
        begun = begun_tokens(self.processor, answers.prefix, both, ends)
        tokens = answer_tokens(self.processor, both, ends)
        for side, one in zip(("chosen", "rejected"), tokens, strict=True):
            logprob_T = log_probs_of(self.model, self.processor, prompt_for(row, side), one)
            yield float(logprob_T[begun:].mean())


def repeats(text: str) -> bool:
    """Whether a text says something twice: a part between punctuation, or a run of words at once.

    A part has three words at least, a run two: a single word may be doubled.

    >>> repeats("there is a car. there is a tree. There is a car.")
    True
    >>> repeats("a red car and a red car and a red car"), repeats("a red car and a red bus")
    (True, False)
    >>> repeats("it is very, very red, a car, a bus and a car.")
    False
    """
    parts = [*_parts(text)]
    long = [part for part in parts if len(part) >= PART]
    return len({*long}) < len(long) or _has_run_twice([word for part in parts for word in part])


def _parts(text: str) -> Iterator[tuple[str, ...]]:
    """The words between punctuation marks, without their capitals."""
    part: list[str] = []
    for start, end in words(text):
        word = text[start:end].casefold()
        if any(map(str.isalnum, word)):
            part.append(word)
        elif part:
            yield tuple(part)
            part = []
    if part:
        yield tuple(part)


def _has_run_twice(spoken: list[str]) -> bool:
    """Whether a run of two words or more is followed by itself."""
    for length in range(2, len(spoken) // 2 + 1):
        same = 0  # words in a row that are those `length` places behind them
        for word, later in zip(spoken, spoken[length:], strict=False):
            same = same + 1 if word == later else 0
            if same == length:
                return True
    return False
