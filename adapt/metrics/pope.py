"""Yes/no questions about objects: POPE (arXiv 2305.10355), https://github.com/RUCAIBox/POPE.

The positive class is "yes"; a model that says yes too often shows in precision and in the yes ratio, which is a share
of the *answers*. Percentages. Where the official code divides by zero, a ratio of nothing is 0 here.
"""

from collections.abc import Sequence

from adapt.metrics.chair import percent


def parse_yes_no(answer: str) -> bool:
    """Whether an answer counts as yes, exactly as the official `evaluate.py` decides.

    Only the first sentence counts, without commas; it is a no when one of the words No, no, not is in it, and else a
    yes. So the empty answer, "NO" and "nope" are yes: keep that in mind with models that do not answer at all.

    >>> [parse_yes_no(a) for a in ("yes, there is a tree.", "no, there is no tree.", "There is not.", "", "NO")]
    [True, False, False, True, True]
    """
    words = answer.split(".")[0].replace(",", "").split(" ")
    return not {"No", "no", "not"} & set(words)


def aggregate(labels: Sequence[bool], answers: Sequence[bool]) -> dict[str, float]:
    """Accuracy, precision, recall, F1 and yes ratio in percent; True means yes.

    Three true questions of which two are answered yes, one false question answered yes: TP 2, FN 1, FP 1, TN 0.

    >>> aggregate([True, True, True, False], [True, True, False, True])  # doctest: +NORMALIZE_WHITESPACE
    {'accuracy': 50.0, 'precision': 66.66666666666667, 'recall': 66.66666666666667, 'f1': 66.66666666666667,
     'yes_ratio': 75.0}
    """
    pairs = list(zip(labels, answers, strict=True))
    hits = sum(label and said for label, said in pairs)
    yes, true = sum(said for _, said in pairs), sum(label for label, _ in pairs)
    return {
        "accuracy": percent(sum(label == said for label, said in pairs), len(pairs)),
        "precision": percent(hits, yes),
        "recall": percent(hits, true),
        "f1": percent(2 * hits, yes + true),
        "yes_ratio": percent(yes, len(pairs)),
    }
