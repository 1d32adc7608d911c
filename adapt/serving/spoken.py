"""One answer while it is made: its tokens, the things that it names, and where it is to end.

The risk of a word is that of its first token, as the detector was fitted
(`adapt/evaluation/judge.py`). Function words have high risks that mean nothing, so only names of
things count.
"""

import bisect
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from adapt.generation.written import Written
from adapt.metrics.mentions import Mention, find, first_token
from adapt.serving.asked import Asked, Finish, Named, Token

Words = Mapping[str, Sequence[str]]
Row = tuple[int, Sequence[Any]]  # of a token: its id, and its values from `Token.logprob` on


class Vocabulary:
    """The words that name things, and what could still become one."""

    def __init__(self, words: Words) -> None:
        self.words = words
        forms = [form for of in words.values() for form in of]
        self._most = max((form.count(" ") + 1 for form in forms), default=0)
        self._beginnings = {form[:n] for form in forms for n in range(1, len(form) + 1)}

    def settled(self, text: str) -> int:
        """Up to where a text names what it names, whatever follows.

        >>> words = Vocabulary({"bus": ["bus"], "light": ["traffic light"]})
        >>> [words.settled(text) for text in ("a bu", "a bus", "a bus.", "a traffic", "a trap")]
        [2, 2, 6, 2, 6]
        """
        lower = text.lower()
        starts = [i for i in range(len(lower)) if _begins(lower, i)][-self._most :]
        open_ = [i for i in starts if lower[i:] in self._beginnings] if self._most else []
        return min(open_, default=len(text))


def _begins(text: str, i: int) -> bool:
    """Whether a word begins there."""
    return _is_letter(text[i]) and not (i and _is_letter(text[i - 1]))


def _is_letter(character: str) -> bool:
    return character.isalnum() or character == "_"


class Spoken:
    """The answer to one question, so far.

    Args:
        written: its text.
        vocabulary: None where nobody knows the names of things.
    """

    def __init__(self, asked: Asked, written: Written, vocabulary: Vocabulary | None) -> None:
        self._asked, self._written, self._vocabulary = asked, written, vocabulary
        self.tokens: list[Token] = []
        self.ended_by_risk = False
        self.is_left = False  # nobody listens any more
        self._told = 0  # tokens that were handed on
        self._is_risky = False  # whether any token could be that of a risky word

    @property
    def text(self) -> str:
        return self._written.text

    def add(self, rows: Iterable[Row]) -> None:
        """New tokens, in order; what follows the end is left out."""
        if self.ended_by_risk:
            return
        for token, values in rows:
            text, end = self._written.add(token)
            new = Token(token, text, end, *values)
            self.tokens.append(new)
            self._is_risky |= new.risk is not None and new.risk >= self._asked.threshold
        self._look()

    def told(self, is_last: bool = False) -> list[Token]:
        """The tokens that are sure to stay and were not handed on yet."""
        ready = len(self.tokens)
        if self._stops and not is_last:
            assert self._vocabulary is not None
            until = self._vocabulary.settled(self.text)
            ready = bisect.bisect_right([token.end for token in self.tokens], until)
        new = self.tokens[self._told : ready]
        self._told = max(ready, self._told)
        return new

    def named(self) -> tuple[Named, ...]:
        """The things that it names so far, in order, with repeats."""
        if self._vocabulary is None:
            return ()
        return tuple(self._of(one) for one in find(self.text, self._vocabulary.words))

    def settle(self) -> None:
        """The answer is over: its last word is whole."""
        self._written.settle()
        self._look(is_last=True)

    def finish(self, is_complete: bool) -> Finish:
        """How it ended; `is_complete`: by an end token."""
        return "risk" if self.ended_by_risk else "stop" if is_complete else "length"

    @property
    def _stops(self) -> bool:
        return self._asked.policy == "stop" and self._vocabulary is not None

    def _of(self, mention: Mention) -> Named:
        at = first_token([token.end for token in self.tokens], mention)
        risk = self.tokens[at].risk if at < len(self.tokens) else None
        return Named(name=mention.name, start=mention.start, end=mention.end, risk=risk)

    def _look(self, is_last: bool = False) -> None:
        """End the answer before the first word whose risk is too high."""
        if not (self._stops and self._is_risky):
            return
        assert self._vocabulary is not None
        until = len(self.text) if is_last else self._vocabulary.settled(self.text)
        for one in self.named():
            if one.end <= until and one.risk is not None and one.risk >= self._asked.threshold:
                kept = [token for token in self.tokens if token.end <= one.start]
                self.tokens = kept
                self._written.keep(len(kept))
                self.ended_by_risk = True
                return
