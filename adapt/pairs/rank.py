"""Ranking a model's own answers by ground truth: which to prefer, which to reject, if any."""

from collections.abc import Sequence

from adapt.data.schema import Example, Vocabulary
from adapt.metrics.chair import count
from adapt.metrics.mentions import Mention, named, word_before
from adapt.metrics.pope import parse_yes_no


def unrankable(example: Example, vocabulary: Vocabulary | None) -> str:
    """Why answers to this question cannot be ranked, or "".

    Yes/no and colour questions are ranked by their own answer, a description by what is there.
    """
    if example.kind == "other":
        return "no rule ranks answers to questions of kind other"
    if example.kind == "describe" and example.objects is None:
        return "what is in the picture is not known"
    if example.kind != "exists" and vocabulary is None:
        return "no vocabulary.json says which words mean an object or a colour"
    return ""


def score(answer: str, example: Example, vocabulary: Vocabulary | None) -> float:
    """How well an answer agrees with the ground truth, at most 1.

    Descriptions: share of true objects mentioned, minus share of mentions that are hallucinated,
    minus half the share of mentions that name a true object in a wrong colour. Yes/no and colour
    questions: 1 when the deciding word is right, else 0. Where it is known that nothing is there, a
    description that names nothing scores 0, and any object takes away from it.
    """
    assert not (reason := unrankable(example, vocabulary)), reason
    # 1. A short question has a deciding word.
    if example.kind == "exists":
        return float(parse_yes_no(answer) == parse_yes_no(example.answer))
    assert vocabulary is not None
    if example.kind == "colour":
        return float(named(answer, vocabulary.colours) == named(example.answer, vocabulary.colours))
    # 2. A description gains by what it covers, or it would be best to say nothing, and loses by
    #    what it makes up.
    counts = count(answer, example, vocabulary)
    coverage = len(counts.covered) / max(len(counts.truth), 1)
    wrong = wrongly_coloured(answer, example, counts.mentions)
    errors = len(counts.hallucinated) + 0.5 * len(wrong)
    return coverage - errors / max(len(counts.mentioned), 1)


def wrongly_coloured(answer: str, example: Example, mentions: Sequence[Mention]) -> list[Mention]:
    """Mentions of true objects whose colour is known and is not the word right before them."""
    colour = {o.name: o.colour for o in example.objects or () if o.colour}
    known = [m for m in mentions if m.name in colour]
    return [m for m in known if word_before(answer, m) != colour[m.name]]


def best_and_worst(
    scores: Sequence[float],
    answers: Sequence[str],
    min_gap: float,
    may_be_best: Sequence[bool] | None = None,
) -> tuple[int, int] | None:
    """Indices of the answers to prefer and to reject, or None when they do not differ enough.

    `may_be_best`: which answers may be preferred, None for any of them; one at least.

    >>> best_and_worst([1.0, 0.2, 0.2], ["a b", "a b c d e", "a c"], min_gap=0.1)
    (0, 2)
    """
    # 1. The best, the first among equals.
    some = [i for i in range(len(scores)) if may_be_best is None or may_be_best[i]]
    best = max(some, key=lambda i: (scores[i], -i))
    # 2. The worst, and among equals the one whose length is nearest to the best answer's: when the
    #    rejected answer is always the longer one, preference tuning only learns to stop early.
    lengths = [len(text.split()) for text in answers]
    distance = [abs(length - lengths[best]) for length in lengths]
    worst = min(range(len(scores)), key=lambda i: (scores[i], distance[i], i))
    return (best, worst) if scores[best] - scores[worst] >= min_gap else None
