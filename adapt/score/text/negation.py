"""Which words of a text stand under a negation: "no dog", "without a leash", "not wearing a hat".

A negation reaches from its word to the next mark, preposition or conjunction ("or", "nor" and "of"
go on). Measured against a parser this is crude, and it knows its limits: in "no dogs, cats or
birds" it stops at the comma, and it knows none of "lacks", "devoid of" or "nobody". The benchmarks'
official codes know no negation at all.
"""

from collections.abc import Sequence

NEGATIONS = frozenset(("no", "not", "n't", "never", "neither", "nor", "without"))
_STOP_WORDS = """
    about above across after against along also although among and around as at because before
    behind below beneath beside besides between beyond but by during except for from if in inside
    instead into just like near next off on only onto other out outside over past rather since so
    than that through to toward towards under underneath until unless up upon when where whereas
    which while who whose with within yet
"""
_STOPS = frozenset(_STOP_WORDS.split())


def negated(words: Sequence[str]) -> list[bool]:
    """For each lower-case word or mark, whether a negation reaches it.

    >>> words = "there is no dog or cat , only a boy without a hat on a bench".split()
    >>> [word for word, under in zip(words, negated(words)) if under]
    ['no', 'dog', 'or', 'cat', 'without', 'a', 'hat']
    """
    under, reached = False, []
    for word in words:
        stops = word in _STOPS or not any(map(str.isalnum, word))
        under = word in NEGATIONS or (under and not stops)
        reached.append(under)
    return reached
