"""Pairs that differ where the hallucination is: `pairs.unit: continuation`.

As in SENTINEL (arXiv 2507.12455) an answer is cut where it first goes wrong, and what the model
itself goes on with from there is set against it: the same verified words before, then a
continuation that makes something up, and one that does not. Where SENTINEL takes the next sentence
alone, both continuations here are complete [ours]: an answer of one sentence has no next one, and
to stop in time is one of the better continuations.
"""

import dataclasses
import re
from collections.abc import Sequence

from adapt.data.schema import Example, Vocabulary
from adapt.pairs.annotate import Answers
from adapt.pairs.beginning import common_beginning
from adapt.pairs.errors import errors
from adapt.pairs.rank import score

_SENTENCE_ENDS = re.compile(r"[.!?\u3002\uff01\uff1f\n]+")  # also the full-width ones


@dataclasses.dataclass(frozen=True)
class Cut:
    """An answer that goes wrong, its score, and where: all before character `at` is right.

    `is_there`: whether the thing that is named then is there, and its colour alone is wrong.
    """

    answer: str
    score: float
    at: int
    is_there: bool

    @property
    def prefix(self) -> str:
        """What is right, and may be gone on from."""
        return self.answer[: self.at]


def cuts(answers: Sequence[str], example: Example, vocabulary: Vocabulary) -> list[Cut]:
    """The answers to a description that go wrong, each cut there, the worst first.

    One that first names what is not there comes before one that first errs in a colour; among
    equals the one that goes wrong the latest does, then the first.
    """
    found = [goes_wrong(answer, example, vocabulary) for answer in answers]
    wrong = [one for one in found if one is not None]
    return sorted(wrong, key=lambda one: (one.is_there, one.score, -one.at))


def goes_wrong(answer: str, example: Example, vocabulary: Vocabulary) -> Cut | None:
    """An answer, cut behind all that is right: the last mention before the first error.

    The words between them belong to what goes wrong, because another answer might stop there, but
    for whole sentences. None where nothing is wrong.
    """
    mentions, wrong = errors(answer, example, vocabulary)
    if not wrong:
        return None
    right = mentions[: mentions.index(wrong[0])]
    end = right[-1].end if right else 0
    between = answer[end : wrong[0].start]
    at = max((end + found.end() for found in _SENTENCE_ENDS.finditer(between)), default=end)
    is_there = wrong[0].name in {thing.name for thing in example.objects or ()}
    return Cut(answer, score(answer, example, vocabulary), at, is_there)


def better(
    bad: Cut, answers: Sequence[str], example: Example, vocabulary: Vocabulary, min_gap: float
) -> Answers | None:
    """The pair of the cut answer and the best that goes on rightly from its prefix, if any does.

    Rightly: the first thing that it names behind the prefix is there, or it names nothing more.
    Among equals the one whose length is nearest to the other's, so that length tells little.
    """
    length = len(bad.answer.split())
    found = [
        (score(one, example, vocabulary), -abs(len(one.split()) - length), -i, one)
        for i, one in enumerate(answers)
        if one.startswith(bad.prefix) and _goes_on_rightly(one, bad.at, example, vocabulary)
    ]
    best, _, _, chosen = max(found, default=(bad.score, 0, 0, ""))
    if best - bad.score < min_gap or not chosen:
        return None
    return Answers(
        chosen=chosen,
        rejected=bad.answer,
        chosen_score=best,
        rejected_score=bad.score,
        prefix=common_beginning(chosen, bad.answer),
    )


def _goes_on_rightly(answer: str, at: int, example: Example, vocabulary: Vocabulary) -> bool:
    mentions, wrong = errors(answer, example, vocabulary)
    behind = [mention for mention in mentions if mention.end > at]
    return not wrong or (bool(behind) and wrong[0].start > behind[0].start)
