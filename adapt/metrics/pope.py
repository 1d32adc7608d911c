"""Yes/no questions about objects: POPE (arXiv 2305.10355), https://github.com/RUCAIBox/POPE.

The positive class is "yes"; a model that says yes too often shows in precision and in the yes
ratio. One file of answers scores differently in each of four published programs, because they read
answers differently:

    official     first sentence, commas removed; a no when one of the words No, no, not is in it, and else a yes, so
                 that "", "NO", "nope" and "no\\n" are yes                  RUCAIBox/POPE evaluate.py
    vcd          with label yes, right when "yes" is in the answer; with label no, right when "no" is, so that "know"
                 and "another" are a no                                     DAMO-NLP-SG/VCD eval_pope.py
    lmms-eval    the whole answer is "yes" or "no", or it is neither: wrong, and in no recall; the yes ratio is of the
                 *labels*                                                   EvolvingLMMs-Lab/lmms-eval tasks/pope
    vlmevalkit   the word yes without the word no, or the other way round, or unknown: wrong
                                                                            open-compass/VLMEvalKit YOrN_Extraction

`strict` mends them: capitals and punctuation do not matter, the first yes or no decides, then a
negation, then "there is"; what is left, the empty answer included, is wrong and is neither yes nor
no. Where the official code divides by zero, a ratio of nothing is 0.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from adapt.metrics.chair import percent
from adapt.metrics.scored import Mode, Scored, ratio

Parser = Literal["official", "vcd", "lmms-eval", "vlmevalkit"]
PARSERS: tuple[Parser, ...] = get_args(Parser)
METRICS = ("accuracy", "precision", "recall", "f1", "yes_ratio")

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


def parse_yes_no(answer: str) -> bool:
    """Whether an answer counts as yes, exactly as the official `evaluate.py` decides.

    Only the first sentence counts, without commas; it is a no when one of the words No, no, not is
    in it, and else a yes. So the empty answer, "NO" and "nope" are yes: keep that in mind with
    models that do not answer at all.

    >>> [parse_yes_no(a) for a in ("yes, there is a tree.", "no, there is no tree.", "There is not.", "", "NO")]
    [True, False, False, True, True]
    """
    words = answer.split(".")[0].replace(",", "").split(" ")
    return not {"No", "no", "not"} & set(words)


def parse(answer: str, label: bool, parser: Parser) -> bool | None:
    """Yes, no or neither (None), as one of the four programs reads it; only VCD's looks at the
    label.

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

    >>> [parse_strict(a) for a in ("NO!", "nope", "There isn't one.", "There is a dog.", "Yes, but not a dog.")]
    [False, False, False, True, True]
    >>> [parse_strict(a) for a in ("", "I do not know.", "It is not clear. Yes", "A brown horse.")]
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
            said = _said(answers[key], question.label, parser, mode)
            images.setdefault(question.image, []).append((question.label, said))
    sums = [_fractions(of_image, parser, mode) for of_image in images.values()]
    total = [pair for of_image in images.values() for pair in of_image]
    metrics = {
        name: above / below if below else 0.0
        for name, (above, below) in _fractions(total, parser, mode).items()
    }
    both = metrics["precision"] + metrics["recall"]
    metrics["f1"] = (
        2 * metrics["precision"] * metrics["recall"] / both if both else 0.0
    )  # the official roundings
    return Scored(
        metrics=metrics,
        counts=_confusion(total),
        ratios={
            name: ratio([s[name][0] for s in sums], [s[name][1] for s in sums]) for name in METRICS
        },
        variant={
            "benchmark": "pope",
            "mode": mode,
            "parser": "strict" if mode == "strict" else parser,
        },
    )


def aggregate(labels: Sequence[bool], answers: Sequence[bool]) -> dict[str, float]:
    """Accuracy, precision, recall, F1 and yes ratio in percent; True means yes.

    Three true questions of which two are answered yes, one false question answered yes: TP 2, FN 1,
    FP 1, TN 0.

    # doctest: +NORMALIZE_WHITESPACE
    >>> aggregate([True, True, True, False], [True, True, False, True])
    {'accuracy': 50.0, 'precision': 66.66666666666667, 'recall': 66.66666666666667, 'f1': 66.66666666666667,
     'yes_ratio': 75.0}
    """
    found = _fractions(list(zip(labels, answers, strict=True)), "official", "official")
    return {name: percent(*found[name]) for name in METRICS}


def _said(answer: str, label: bool, parser: Parser, mode: Mode) -> bool | None:
    return parse_strict(answer) if mode == "strict" else parse(answer, label, parser)


def _confusion(pairs: Iterable[tuple[bool, bool | None]]) -> dict[str, int]:
    """Of (label, said): yes is positive, None is neither."""
    counts = dict.fromkeys(("TP", "FP", "TN", "FN", "neither"), 0)
    names = {(True, True): "TP", (False, True): "FP", (False, False): "TN", (True, False): "FN"}
    for label, said in pairs:
        counts["neither" if said is None else names[label, said]] += 1
    return counts


def _fractions(
    pairs: Sequence[tuple[bool, bool | None]], parser: Parser, mode: Mode
) -> dict[str, tuple[int, int]]:
    """Numerator and denominator of each metric."""
    count, lmms = _confusion(pairs), parser == "lmms-eval" and mode == "official"
    hits, yes = count["TP"], count["TP"] + count["FP"]
    labels = sum(label for label, _ in pairs)
    true = hits + count["FN"] if lmms else labels
    return {
        "accuracy": (hits + count["TN"], len(pairs)),
        "precision": (hits, yes),
        "recall": (hits, true),
        "f1": (2 * hits, yes + true),
        "yes_ratio": (labels if lmms else yes, len(pairs)),
    }


def _unpunctuated(text: str) -> str:
    """VLMEvalKit's rule: a mark beside a space anywhere is removed everywhere, and else becomes a
    space.

    >>> _unpunctuated("no,there"), _unpunctuated("no, or yes,no"), _unpunctuated("yes. 2.5")
    ('no there', 'no or yesno', 'yes 2.5')
    """
    number = re.search(r"\d,\d", text) is not None
    cleaned = text
    for mark in _MARKS:
        beside = number or f"{mark} " in text or f" {mark}" in text
        cleaned = cleaned.replace(mark, "" if beside else " ")
    return re.sub(r"\.(?!\d)", "", cleaned, count=_PERIODS)
