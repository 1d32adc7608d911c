"""Which of several is the best, by what each has said of the validation split [ours].

The lowest Hal among those that keep the Cover of a reference: a model that says less hallucinates
less, and one that says nothing never does. So the rule is chosen by which a model is steered, the
learning rates of a comparison's arms, the rounds of a chain, and the checkpoint of a training.
"""

from collections.abc import Mapping, Sequence

KEPT = {"cover": 1.0, "pope_f1": 1.0}  # points that a choice may cost on validation


def best(trials: Sequence[Mapping[str, float]], reference: Mapping[str, float]) -> int:
    """Position of the lowest Hal among those that keep what `KEPT` names, else of the least loss.

    Of equal ones the first. What was not measured of both is not asked for.

    >>> base = {"hal": 30.0, "cover": 95.0, "pope_f1": 94.0}
    >>> kept = {"hal": 14.0, "cover": 94.5, "pope_f1": 95.0}
    >>> lost = {"hal": 9.0, "cover": 95.0, "pope_f1": 86.0}
    >>> best([kept, lost], base), best([lost, {"hal": 20.0, "cover": 90.0, "pope_f1": 94.0}], base)
    (0, 1)
    """

    def order(metrics: Mapping[str, float]) -> tuple[float, float]:
        shared = [key for key in KEPT if key in reference and key in metrics]
        losses = [reference[key] - metrics[key] - KEPT[key] for key in shared]
        return max([0.0, *losses]), metrics["hal"]

    return min(range(len(trials)), key=lambda i: order(trials[i]))
