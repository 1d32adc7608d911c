"""AMBER's yes/no questions (arXiv 2311.07397, section 3.3) as its code counts them.

Accuracy, precision, recall and F1. The positive class is "No": precision is the share of No answers
that are right, recall the share of "no" questions that are answered No. In `official` mode an
answer is the exact string `Yes` or `No`; anything else ("no", "No.") counts as wrong, every
denominator has 0.001 added, and F1 is taken from precision and recall after they are rounded, with
0.0001 (existence alone: 0.001) in its denominator. `strict` mode reads the first word whatever its
case and does plain sums.

Beside the metrics over all questions stand those of each dimension that has answers: existence,
attribute (state, number and action together), state, number, action, relation.
"""

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from adapt.score.scored import Mode, Ratio, per_image, share

# An annotation's type to the prefix of its official counters; two names of one type are in use.
PREFIXES = {
    "discriminative-hallucination": "ha_",
    "discriminative-attribute-state": "as_",
    "discriminative-attribute-number": "an_",
    "discriminative-attribute-action": "aa_",
    "discriminative-relation": "asso_",
    "relation": "asso_",
}
_DIMENSIONS = {
    "": ("",),
    "existence_": ("ha_",),
    "attribute_": ("as_", "an_", "aa_"),
    "state_": ("as_",),
    "number_": ("an_",),
    "action_": ("aa_",),
    "relation_": ("asso_",),
}
_KEYS = ("correct_score", "correct_num", "ans_no_score", "ans_no_num", "no_score", "no_num")
COUNTERS = frozenset(f"{of}qa_{key}" for of in ("", *PREFIXES.values()) for key in _KEYS)
_WORD = re.compile(r"[a-z]+")


class Answered(NamedTuple):
    """One question, or an image's, under the official counters' names.

    `ans_no_score` is missing: it equals `no_score`.
    """

    correct_score: int
    correct_num: int
    no_score: int
    no_num: int
    ans_no_num: int


def count(answer: str, truth: str, mode: Mode) -> Answered:
    """Compare one answer with the truth, "yes" or "no".

    >>> count("No", "no", "official")
    Answered(correct_score=1, correct_num=1, no_score=1, no_num=1, ans_no_num=1)
    >>> count("no.", "no", "official").no_score, count("no.", "no", "strict").no_score
    (0, 1)
    """
    if mode == "strict":
        first = _WORD.search(answer.lower())
        answer = first[0].capitalize() if first else ""
    is_no, says_no = truth == "no", answer == "No"
    right = int(says_no if is_no else answer == "Yes")
    return Answered(right, 1, int(is_no and says_no), int(is_no), int(says_no))


def counters(kind: str, answered: Answered) -> dict[str, int]:
    """The official counters that a question of this type moves: overall and its dimension's."""
    values = {**answered._asdict(), "ans_no_score": answered.no_score}
    prefixes = ("", PREFIXES[kind])
    return {f"{of}qa_{name}": value for of in prefixes for name, value in values.items()}


def rates(totals: Mapping[str, float], mode: Mode) -> dict[str, float]:
    """Percentages with one decimal, over all questions and for each dimension that has any.

    7 of 10 right; 4 questions are "no", 3 of them answered No, of 4 No answers: precision and
    recall 75 %. In official mode 3 / 4.001 rounds to the same 75.0, and F1 becomes 2 * 0.75 * 0.75
    / 1.5001 = 75.0.

    >>> counted = {"correct_score": 7, "correct_num": 10, "no_score": 3, "no_num": 4}
    >>> counted |= {"ans_no_score": 3, "ans_no_num": 4}
    >>> totals = {f"{of}qa_{name}": value for of in ("", "ha_") for name, value in counted.items()}
    >>> rates(totals, "strict")["f1"]
    75.0
    """
    metrics: dict[str, float] = {}
    for name, prefixes in _DIMENSIONS.items():
        table = {key: sum(totals.get(f"{p}qa_{key}", 0) for p in prefixes) for key in _KEYS}
        if table["correct_num"] >= 1:
            metrics |= {f"{name}{key}": value for key, value in _rates(table, mode, name).items()}
    return metrics


def _rates(table: Mapping[str, float], mode: Mode, dimension: str) -> dict[str, float]:
    accuracy, precision, recall = (
        round(100 * share(table[f"{of}_score"], table[f"{of}_num"]), 1)
        for of in ("correct", "ans_no", "no")
    )
    if mode == "strict":
        f1 = 100 * share(2 * table["no_score"], table["ans_no_num"] + table["no_num"])
    else:
        # The official F1 comes from the rounded percentages, back as fractions.
        p, r = precision / 100, recall / 100
        f1 = 2 * p * r / (p + r + (0.001 if dimension == "existence_" else 0.0001)) * 100
    return {"accuracy": accuracy, "precision": precision, "recall": recall, "f1": round(f1, 1)}


def ratios(
    kinds: Sequence[str], answered: Sequence[Answered], images: Sequence[str]
) -> dict[str, Ratio]:
    """Sums over the questions of each image, for every metric that `rates` gives.

    >>> answered = [Answered(1, 1, 1, 1, 1), Answered(0, 1, 0, 0, 1)]
    >>> ratios(["relation"] * 2, answered, ["a.jpg", "a.jpg"])["relation_f1"]
    (array([2]), array([3]))
    """
    ratios: dict[str, Ratio] = {}
    for name, prefixes in _DIMENSIONS.items():
        rows = zip(kinds, images, answered, strict=True)
        own = [row[1:] for row in rows if "" in prefixes or PREFIXES[row[0]] in prefixes]
        if own:
            of = per_image(Answered._fields, own)
            ratios[f"{name}accuracy"] = of["correct_score"], of["correct_num"]
            ratios[f"{name}precision"] = of["no_score"], of["ans_no_num"]
            ratios[f"{name}recall"] = of["no_score"], of["no_num"]
            ratios[f"{name}f1"] = 2 * of["no_score"], of["ans_no_num"] + of["no_num"]
    return ratios
