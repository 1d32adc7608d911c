"""What both answers of a pair begin with, and are not trained on.

Pairs that differ where the hallucination is (SENTINEL, arXiv 2507.12455; TPR, arXiv 2411.17265) say
the same up to there. In the margin of DPO what they share counts nothing: given the same prompt it
is as likely in the one answer as in the other. In SFT and attention supervision it would count. So
it becomes part of the prompt (`completion_mask`), as it is where an answer goes on from it.
"""

from collections.abc import Sequence
from typing import Any

from adapt.data.schema import Preference
from adapt.models.prompts import answer_tokens
from adapt.pairs.deciding import words
from adapt.pairs.record import Pair


def common_beginning(chosen: str, rejected: str) -> str:
    """The whole words that both answers begin with, without the white space behind them.

    >>> common_beginning("a red house, and a tree.", "a red house, and a treehouse.")
    'a red house, and a'
    """
    last = 0
    for own, other in zip(words(chosen), words(rejected), strict=False):
        if own != other or chosen[last : own[1]] != rejected[last : own[1]]:
            break
        last = own[1]
    return chosen[:last]


def given_beginning(row: Preference | Pair) -> str:
    """Of a pair that was given: none of answers about different pictures, which part at once."""
    return "" if row.rejected_images else common_beginning(row.chosen, row.rejected)


def begun_tokens(processor: Any, prefix: str, answers: Sequence[str], ends: Sequence[int]) -> int:
    """How many tokens of these answers, the same in all of them, are those of the prefix.

    A token that also stands for something behind it is none: it is where the answers part.
    """
    if not prefix:
        return 0
    first, *others = (one[:-1] for one in answer_tokens(processor, [prefix, *answers], ends))
    count = 0
    for token, *same in zip(first, *others, strict=False):
        if any(other != token for other in same):
            break
        count += 1
    return count
