"""POPE's answers (arXiv 2305.10355), read as four published programs read them, or as meant.

One file of answers scores differently in each program, because they read answers differently:

    official     RUCAIBox/POPE, evaluate.py: the first sentence, commas removed; a no when one of
                 the words No, no, not is in it, and else a yes, so that "", "NO", "nope" and
                 "no\\n" are yes (`adapt.metrics.pope`)
    vcd          DAMO-NLP-SG/VCD, eval_pope.py: with label yes, right when "yes" is in the answer;
                 with label no, right when "no" is, so that "know" and "another" are a no
    lmms-eval    EvolvingLMMs-Lab/lmms-eval, tasks/pope: the whole answer is "yes" or "no", or it is
                 neither: wrong, and in no recall; the yes ratio is of the *labels*
    vlmevalkit   open-compass/VLMEvalKit, YOrN_Extraction: the word yes without the word no, or the
                 other way round, or unknown: wrong

`strict` mends them: capitals and punctuation do not matter, the first yes or no decides, then a
negation, then "there is"; what is left, the empty answer included, is wrong and is neither yes nor
no. Where the official code divides by zero, a ratio of nothing is 0.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from adapt.metrics.pope import METRICS, confusion, fractions, parse_yes_no
from adapt.score.scored import Mode, Scored, ratio, share

Parser = Literal["official", "vcd", "lmms-eval", "vlmevalkit"]
PARSERS: tuple[Parser, ...] = get_args(Parser)
Pairs = Sequence[tuple[bool, bool | None]]  # of label and answer

_MARKS = ';/[]"{}()=+\\_-><@`,?!'  # VLMEvalKit's list
_PERIODS = 32  # how many full stops it removes: re.UNICODE, given where a count belongs
_NEGATION = re.compile(r"\b(?:not|none|nothing|nowhere|never|without|cannot)\b|n't\b")
_UNSURE = re.compile(
    r"\b(?:unclear|unknown|unsure|uncertain|not (?:clear|sure|certain|known)"
    r"|(?:do not|don't|cannot|can not|can't) (?:know|tell|say|determine))\b"
)


@dataclass(frozen=True)
class Question:
    """A question about an image; `label` says whether yes is right."""

    image: str
    label: bool


def parse(answer: str, label: bool, parser: Parser) -> bool | None:
    """Yes, no or neither (None), as one of the programs reads it; only VCD's looks at the label.

    >>> [parse("I do not know", True, parser) for parser in PARSERS]
    [False, False, None, None]
    """
    if parser == "official":
        return parse_yes_no(answer)
    lower = answer.lower().strip()
    if parser == "vcd":
        return "yes" in lower if label else "no" not in lower
    if parser == "lmms-eval":
        return {"yes": True, "no": False}.get(lower)
    words = _unpunctuated(answer.lower()).split()
    return "yes" in words if ("yes" in words) != ("no" in words) else None


def parse_strict(answer: str) -> bool | None:
    """Yes, no or neither, by what the answer says.

    >>> answers = ("NO!", "nope", "There isn't one.", "There is a dog.", "Yes, but not a dog.")
    >>> [parse_strict(answer) for answer in answers]
    [False, False, False, True, True]
    >>> [parse_strict(answer) for answer in ("", "I do not know.", "Not clear. Yes", "A cow.")]
    [None, None, True, None]
    """
    lower = answer.lower().replace("\u2019", "'")  # the typographic apostrophe
    if first := re.search(r"\b(?:yes|yeah|yep|no|nope)\b", lower):
        return first[0].startswith("y")
    if _UNSURE.search(lower):
        return None
    if _NEGATION.search(lower):
        return False
    return True if re.match(r"\W*there(?: (?:is|are)|'s)\b", lower) else None


def score(
    answers: Mapping[str, str], questions: Mapping[str, Question], parser: Parser, mode: Mode
) -> Scored:
    """All questions that are answered, by question id; fractions, as the official code prints them.

    Two images. The first has a cat (found) and no dog ("yes": FP 1); the second has a bus, which is
    denied (FN 1).

    >>> asked = {"1": Question("a", True), "2": Question("a", False), "3": Question("b", True)}
    >>> scored = score({"1": "Yes", "2": "yes.", "3": "No"}, asked, "official", "official")
    >>> scored.counts
    {'TP': 1, 'FP': 1, 'TN': 0, 'FN': 1, 'neither': 0}
    >>> scored.metrics["precision"], scored.metrics["yes_ratio"]
    (0.5, 0.6666666666666666)
    """
    images: dict[str, list[tuple[bool, bool | None]]] = {}
    for key, question in questions.items():
        if key in answers:
            label, text = question.label, answers[key]
            answer = parse_strict(text) if mode == "strict" else parse(text, label, parser)
            images.setdefault(question.image, []).append((label, answer))
    count = _lmms_fractions if (parser, mode) == ("lmms-eval", "official") else fractions
    sums = [count(pairs) for pairs in images.values()]
    every = [pair for pairs in images.values() for pair in pairs]
    metrics = {name: share(*fraction) for name, fraction in count(every).items()}
    # From the two rates, as the official code does: its roundings in the last digit.
    precision, recall = metrics["precision"], metrics["recall"]
    metrics["f1"] = share(2 * precision * recall, precision + recall)
    columns = {name: [fraction[name] for fraction in sums] for name in METRICS}
    ratios = {name: ratio([a for a, _ in of], [b for _, b in of]) for name, of in columns.items()}
    read_by = "strict" if mode == "strict" else parser
    variant = {"benchmark": "pope", "mode": mode, "parser": read_by}
    return Scored(metrics, confusion(every), ratios, variant)


def _lmms_fractions(pairs: Pairs) -> dict[str, tuple[int, int]]:
    """lmms-eval's: recall leaves out answers that are neither, the yes ratio is of the labels."""
    counts, of = confusion(pairs), fractions(pairs)
    true = counts["TP"] + counts["FN"]
    return of | {
        "recall": (counts["TP"], true),
        "f1": (2 * counts["TP"], of["precision"][1] + true),
        "yes_ratio": (sum(label for label, _ in pairs), len(pairs)),
    }


def _unpunctuated(text: str) -> str:
    """VLMEvalKit's rule: a mark beside a space anywhere is removed everywhere, or else a space.

    >>> _unpunctuated("no,there"), _unpunctuated("no, or yes,no"), _unpunctuated("yes. 2.5")
    ('no there', 'no or yesno', 'yes 2.5')
    """
    number = re.search(r"\d,\d", text) is not None
    cleaned = text
    for mark in _MARKS:
        beside = number or f"{mark} " in text or f" {mark}" in text
        cleaned = cleaned.replace(mark, "" if beside else " ")
    return re.sub(r"\.(?!\d)", "", cleaned, count=_PERIODS)
