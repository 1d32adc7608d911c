"""AMBER's descriptions: CHAIR, Cover, Hal and Cog (arXiv 2311.07397, section 3.3) as its code
counts them.

Of a response's nouns those of AMBER's closed vocabulary count, repeats included. An annotated word
is matched by the words associated with it (`relation.json`), then by itself; a noun credits the
first match only. Each noun is

    a global safe word                              nothing but a place in the denominator
    matched by the truth                            covered
    else matched by, or like, a target              the target is named (Cog), and then
         like a match of the truth                  covered, not hallucinated
         like nothing in the truth                  hallucinated

"Like" is a similarity above 0.8, given here as pairs. Over all responses, in percent:

    chair = hallucinated / vocabulary nouns           cover = covered truth words / truth words
    hal   = responses with a hallucinated noun        cog   = named targets / targets

The official code adds 0.001 to each denominator and rounds to one decimal, and so is `official`
mode: one response with a hallucination gives hal 100.0 and one without 0.1. A truth word that is
listed twice is covered once. The paper's Cog divides by the mentioned objects; the code, and this,
by the targets.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

from adapt.metrics.scored import Mode, Ratio, ratio

Entries = list[tuple[str, int]]


class Counted(NamedTuple):
    """One response, under the names of the official counters."""

    chair_score: int
    chair_num: int
    safe_cover_score: int
    safe_cover_num: int
    hallu_cover_score: int
    hallu_cover_num: int
    non_hallu_score: int
    non_hallu_num: int


def count(
    mentioned: Sequence[str],
    truth: Sequence[str],
    targets: Sequence[str],
    associated: Mapping[str, Sequence[str]],
    safe: Collection[str],
    similar: Collection[tuple[str, str]],
) -> Counted:
    """Count one response's vocabulary nouns; `similar` holds each pair of different words in both
    orders.

    A person, who is there, is called a man; the dog is a target; a kitten is like a cat, and the
    cat is there.

    >>> count(["man", "dog", "kitten", "light"], ["person", "cat"], ["dog", "sun"],
    ...       {"person": ["man"], "cat": [], "dog": [], "sun": []}, {"light"}, {("kitten", "cat")})[:6]
    (1, 4, 2, 2, 1, 2)
    """
    there, feared = _entries(truth, associated), _entries(targets, associated)
    covered: set[int | None] = set()
    named: set[int | None] = set()
    hallucinated = 0
    for noun in mentioned:
        if noun in safe:
            continue
        found = _first(noun, there, ())
        if found is None:
            named |= {_first(noun, feared, ()), _first(noun, feared, similar)}
            found = _first(noun, there, similar)
        covered.add(found)
        hallucinated += found is None
    hits, cognitive = len(covered - {None}), len(named - {None})
    sizes = (len(mentioned), len(truth), len(targets))
    return Counted(
        hallucinated, sizes[0], hits, sizes[1], cognitive, sizes[2], int(hallucinated == 0), 1
    )


def _entries(annotated: Sequence[str], associated: Mapping[str, Sequence[str]]) -> Entries:
    """What matches which annotated word, in the order in which matches are tried.

    >>> _entries(["person", "cat"], {"person": ["man", "boy"], "cat": []})
    [('man', 0), ('boy', 0), ('person', 0), ('cat', 1)]
    """
    others = [(other, place) for place, word in enumerate(annotated) for other in associated[word]]
    return others + [(word, place) for place, word in enumerate(annotated)]


def _first(noun: str, entries: Entries, similar: Collection[tuple[str, str]]) -> int | None:
    """The annotated word that the first entry equal to the noun, or similar to it, stands for."""
    return next((place for word, place in entries if word == noun or (noun, word) in similar), None)


def rates(totals: Mapping[str, float], mode: Mode) -> dict[str, float]:
    """Percentages with one decimal from the summed counters, which in official mode begin at 0.001
    where they divide.

    >>> counted = dict(zip(Counted._fields, (2, 9.001, 5, 8.001, 1, 5.001, 0, 1.001)))
    >>> rates(counted, "official")
    {'chair': 22.2, 'cover': 62.5, 'hal': 100.0, 'cog': 20.0}
    """
    strict = mode == "strict"

    def share(name: str) -> float:
        above, below = totals[f"{name}_score"], totals[f"{name}_num"]
        return 0.0 if strict and not below else above / below * 100

    return {
        "chair": round(share("chair"), 1),
        "cover": round(share("safe_cover"), 1),
        "hal": round(100 - share("non_hallu"), 1),
        "cog": round(share("hallu_cover"), 1),
    }


def ratios(counted: Sequence[Counted]) -> dict[str, Ratio]:
    """Numerators and denominators per response, which is per image."""
    return {
        "chair": ratio([c.chair_score for c in counted], [c.chair_num for c in counted]),
        "cover": ratio([c.safe_cover_score for c in counted], [c.safe_cover_num for c in counted]),
        "hal": ratio([1 - c.non_hallu_score for c in counted], [1 for _ in counted]),
        "cog": ratio([c.hallu_cover_score for c in counted], [c.hallu_cover_num for c in counted]),
    }
