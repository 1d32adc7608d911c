"""Yes/no questions about objects: POPE (arXiv 2305.10355), https://github.com/RUCAIBox/POPE.

The positive class is "yes"; a model that says yes too often shows in precision and in the yes
ratio. Answers are read as the official program reads them; `adapt.score.pope` has the readings of
the other programs. Where the official code divides by zero, a ratio of nothing is 0.
"""

from collections.abc import Iterable, Sequence

from adapt.metrics.chair import percent

METRICS = ("accuracy", "precision", "recall", "f1", "yes_ratio")


def parse_yes_no(answer: str) -> bool:
    """Whether an answer counts as yes, exactly as the official `evaluate.py` decides.

    The empty answer, "NO" and "nope" are yes: keep that in mind with models that do not answer.

    >>> answers = ("yes, there is a tree.", "no, there is no tree.", "There is not.", "", "NO")
    >>> [parse_yes_no(answer) for answer in answers]
    [True, False, False, True, True]
    """
    # 1. Only what stands before the first full stop counts, and commas are dropped from it.
    sentence = answer.split(".")[0].replace(",", "")
    # 2. It is a no when one of its words, parted by blanks, is exactly one of these. A capital NO,
    #    or "no" before a line break, is not one of them.
    # 3. Everything else is a yes.
    return not {"No", "no", "not"} & set(sentence.split(" "))


def aggregate(labels: Sequence[bool], answers: Sequence[bool]) -> dict[str, float]:
    """Accuracy, precision, recall, F1 and yes ratio in percent; True means yes.

    Three true questions of which two are answered yes, one false question answered yes: TP 2, FN 1,
    FP 1, TN 0.

    >>> metrics = aggregate([True, True, True, False], [True, True, False, True])
    >>> {name: round(value, 1) for name, value in metrics.items()}
    {'accuracy': 50.0, 'precision': 66.7, 'recall': 66.7, 'f1': 66.7, 'yes_ratio': 75.0}
    """
    pairs = fractions(list(zip(labels, answers, strict=True)))
    return {name: percent(*pairs[name]) for name in METRICS}


def confusion(pairs: Iterable[tuple[bool, bool | None]]) -> dict[str, int]:
    """TP, FP, TN and FN of (label, answer) pairs, and how many answers are `neither` (None)."""
    counts = dict.fromkeys(("TP", "FP", "TN", "FN", "neither"), 0)
    names = {(True, True): "TP", (False, True): "FP", (False, False): "TN", (True, False): "FN"}
    for label, answer in pairs:
        counts["neither" if answer is None else names[label, answer]] += 1
    return counts


def fractions(pairs: Sequence[tuple[bool, bool | None]]) -> dict[str, tuple[int, int]]:
    """Numerator and denominator of each metric; an answer that is neither is wrong."""
    counts, true = confusion(pairs), sum(label for label, _ in pairs)
    yes = counts["TP"] + counts["FP"]
    return {
        "accuracy": (counts["TP"] + counts["TN"], len(pairs)),
        "precision": (counts["TP"], yes),
        "recall": (counts["TP"], true),
        "f1": (2 * counts["TP"], yes + true),
        "yes_ratio": (yes, len(pairs)),
    }
