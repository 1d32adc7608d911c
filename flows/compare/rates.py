"""The learning rate of each arm that trains: no arm must win because the common rate suits it."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from prefect.logging import get_run_logger

from adapt import params
from adapt.metrics.measures import OBJECTS
from adapt.names import one_line
from adapt.params import InputError
from adapt.preference.settings import Config as TrainConfig
from flows.compare import scoring
from flows.compare.arms import Arm, Comparison, changed

KEPT = {"cover": 1.0, "pope_f1": 1.0}  # points that a rate may cost against base on validation


def tuned(comparison: Comparison, arms: Sequence[Arm]) -> list[Arm]:
    """The arms, those that train with the rate that `best` chooses on validation."""
    rates, first = comparison.arms.learning_rates, comparison.arms.seeds[:1]
    trained = [arm for arm in arms if arm.train]
    trials = {arm.name: [_with_rate(comparison, arm, rate) for rate in rates] for arm in trained}
    chosen = {name: of_arm[0] for name, of_arm in trials.items()}
    if len(rates) > 1 and trials:
        candidates = [trial for of_arm in trials.values() for trial in of_arm]
        wanted = [comparison.arm("base"), *candidates]
        base, *scores = scoring.score(comparison, wanted, first, "validation")
        if "hal" not in base.metrics:
            problem = f"a rate is chosen by Hal, and the validation split has no {OBJECTS}"
            raise InputError(f"arms.yaml: learning_rates: {problem}; list one rate")
        metrics = iter([one.metrics for one in scores])
        for name, of_arm in trials.items():
            by_rate = [next(metrics) for _ in of_arm]
            for trial, of_trial in zip(of_arm, by_rate, strict=True):
                _log(trial, of_trial)
            chosen[name] = of_arm[best(by_rate, base.metrics)]
    return [chosen.get(arm.name, arm) for arm in arms]


def best(trials: Sequence[Mapping[str, float]], base: Mapping[str, float]) -> int:
    """Position of the lowest Hal among those that keep what `KEPT` names, else of the least loss.

    >>> base = {"hal": 30.0, "cover": 95.0, "pope_f1": 94.0}
    >>> kept = {"hal": 14.0, "cover": 94.5, "pope_f1": 95.0}
    >>> lost = {"hal": 9.0, "cover": 95.0, "pope_f1": 86.0}
    >>> best([kept, lost], base), best([lost, {"hal": 20.0, "cover": 90.0, "pope_f1": 94.0}], base)
    (0, 1)
    """

    def order(metrics: Mapping[str, float]) -> tuple[float, float]:
        losses = [
            base[key] - metrics[key] - KEPT[key] for key in KEPT if key in base and key in metrics
        ]
        return max(0.0, *losses), metrics["hal"]

    return min(range(len(trials)), key=lambda i: order(trials[i]))


def _with_rate(comparison: Comparison, arm: Arm, rate: float) -> Arm:
    changes = {**arm.changes, "learning_rate": rate}
    content = changed(comparison.content, "train", changes)
    return replace(arm, train=params.load(content, "train", TrainConfig), changes=changes)


def _log(arm: Arm, metrics: Mapping[str, float]) -> None:
    shown = ", ".join(f"{key} {metrics[key]:.1f}" for key in ("hal", *KEPT) if key in metrics)
    rate = arm.changes["learning_rate"]
    get_run_logger().info(one_line(f"{arm.name}, learning rate {rate:g}, on validation: {shown}"))
