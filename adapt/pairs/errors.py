"""What an answer says that is not so, by ground truth, and whether it may be the better one.

Ranked alone, the best of several answers is better than the worst and may still make something up;
training then teaches what it should undo. With `pairs.chosen: truthful` the better answer is the
best of those that make nothing up.
"""

from collections.abc import Sequence

from adapt.data.schema import Example, Vocabulary
from adapt.metrics.chair import count
from adapt.metrics.mentions import Mention
from adapt.pairs.deciding import phrase
from adapt.pairs.rank import score, wrongly_coloured


def is_truthful(answer: str, example: Example, vocabulary: Vocabulary | None) -> bool:
    """Whether an answer to a question that can be ranked makes nothing up.

    A description may leave things out. A short answer is right or it is not.
    """
    if example.kind != "describe":
        return score(answer, example, vocabulary) == 1
    assert vocabulary is not None, "a description is ranked by its words for objects"
    return not errors(answer, example, vocabulary)[1]


def errors(
    answer: str, example: Example, vocabulary: Vocabulary
) -> tuple[Sequence[Mention], list[Mention]]:
    """All mentions, and those of what is not there or has another colour than the one said.

    A colour that is not said is no error: there is no word that could become less likely.
    """
    counts = count(answer, example, vocabulary)
    off = wrongly_coloured(answer, example, counts.mentions)
    said = [m for m in off if phrase(answer, m, vocabulary) != m.span]
    return counts.mentions, [m for m in counts.mentions if m.name not in counts.truth or m in said]
