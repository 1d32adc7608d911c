"""AMBER's descriptions (arXiv 2311.07397, section 3.3) as its code counts them.

CHAIR, Cover, Hal and Cog. Of a response's nouns those of AMBER's closed vocabulary count, repeats
included. An annotated word is matched by the words associated with it (`relation.json`), then by
itself; a noun credits the first match only. Each noun is

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
from dataclasses import dataclass
from typing import NamedTuple

from adapt.score.scored import Ratio, ratio, share

Entries = list[tuple[str, int]]
# A metric's official counters; Hal's count the responses that have no hallucination.
_NAMES = {"chair": "chair", "cover": "safe_cover", "hal": "non_hallu", "cog": "hallu_cover"}


@dataclass(frozen=True)
class Words:
    """AMBER's closed vocabulary."""

    associated: Mapping[str, Sequence[str]]  # the words that stand for an annotated one
    safe: Collection[str]  # never wrong
    similar: Collection[tuple[str, str]]  # each pair of different words in both orders


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
    mentioned: Sequence[str], truth: Sequence[str], targets: Sequence[str], words: Words
) -> Counted:
    """Count one response's vocabulary nouns.

    A person, who is there, is called a man; the dog is a target; a kitten is like a cat, and the
    cat is there.

    >>> associated = {"person": ["man"], "cat": [], "dog": [], "sun": []}
    >>> words = Words(associated, safe={"light"}, similar={("kitten", "cat")})
    >>> count(["man", "dog", "kitten", "light"], ["person", "cat"], ["dog", "sun"], words)[:6]
    (1, 4, 2, 2, 1, 2)
    """
    true, feared = _entries(truth, words.associated), _entries(targets, words.associated)
    covered: set[int | None] = set()
    named: set[int | None] = set()
    hallucinated = 0
    for noun in mentioned:
        # 1. A word that is safe in every image says nothing about this one.
        if noun in words.safe:
            continue
        # 2. A noun that the truth lists is covered.
        match = _first(noun, true, ())
        if match is None:
            # 3. Another one credits the target that it is, and the first target that it is like:
            #    they may be two.
            named |= {_first(noun, feared, ()), _first(noun, feared, words.similar)}
            # 4. It is forgiven if it is like something in the truth, and covers that.
            match = _first(noun, true, words.similar)
        covered.add(match)
        hallucinated += match is None
    return Counted(
        chair_score=hallucinated,
        chair_num=len(mentioned),
        safe_cover_score=len(covered - {None}),
        safe_cover_num=len(truth),
        hallu_cover_score=len(named - {None}),
        hallu_cover_num=len(targets),
        non_hallu_score=int(hallucinated == 0),
        non_hallu_num=1,
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


def rates(totals: Mapping[str, float]) -> dict[str, float]:
    """Percentages with one decimal from summed counters; official denominators begin at 0.001.

    >>> counted = dict(zip(Counted._fields, (2, 9.001, 5, 8.001, 1, 5.001, 0, 1.001)))
    >>> rates(counted)
    {'chair': 22.2, 'cover': 62.5, 'hal': 100.0, 'cog': 20.0}
    """
    pairs = {name: (totals[f"{of}_score"], totals[f"{of}_num"]) for name, of in _NAMES.items()}
    percent = {name: share(*pair) * 100 for name, pair in pairs.items()}
    percent["hal"] = 100 - percent["hal"]
    return {name: round(value, 1) for name, value in percent.items()}


def ratios(counted: Sequence[Counted]) -> dict[str, Ratio]:
    """Numerators and denominators per response, which is per image."""
    table = {key: [one._asdict()[key] for one in counted] for key in Counted._fields}
    ratios = {name: ratio(table[f"{of}_score"], table[f"{of}_num"]) for name, of in _NAMES.items()}
    right, all_ = ratios["hal"]
    return ratios | {"hal": (all_ - right, all_)}
