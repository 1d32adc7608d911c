"""The learning rate of each arm that trains: no arm must win because the common rate suits it.

An arm that names a rate itself keeps it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from prefect.logging import get_run_logger

from adapt import params
from adapt.generation.choosing import KEPT, best
from adapt.metrics.measures import OBJECTS
from adapt.names import one_line
from adapt.params import InputError
from adapt.preference.settings import Config as TrainConfig
from flows.compare import scoring
from flows.compare.arms import Arm, Comparison, changed


def tuned(comparison: Comparison, arms: Sequence[Arm]) -> list[Arm]:
    """The arms, those that train with the rate that `best` chooses on validation."""
    rates, first = comparison.arms.learning_rates, comparison.arms.seeds[:1]
    trials = {
        arm.name: [_with_rate(arm, rate) for rate in rates]
        for arm in arms
        if arm.train and arm.changes.rate is None
    }
    chosen = {name: of_arm[0] for name, of_arm in trials.items()}
    if len(rates) > 1 and trials:
        # Every arm's base, which is that of its world, and then the arm at every rate.
        sides = [[comparison.base_of(of_arm[0]), *of_arm] for of_arm in trials.values()]
        wanted = [trial for side in sides for trial in side]
        scores = iter(scoring.score(comparison, wanted, first, "validation"))
        for name, of_arm in trials.items():
            base, *by_rate = [next(scores).metrics for _ in range(len(of_arm) + 1)]
            _require_hal(base)
            for trial, of_trial in zip(of_arm, by_rate, strict=True):
                _log(trial, of_trial)
            chosen[name] = of_arm[best(by_rate, base)]
    return [chosen.get(arm.name, arm) for arm in arms]


def _require_hal(base: Mapping[str, float]) -> None:
    if "hal" not in base:
        problem = f"a rate is chosen by Hal, and the validation split has no {OBJECTS}"
        raise InputError(f"arms.yaml: learning_rates: {problem}; list one rate")


def _with_rate(arm: Arm, rate: float) -> Arm:
    content = changed(arm.content, "train", {"learning_rate": rate})
    return replace(arm, train=params.load(content, "train", TrainConfig), content=content)


def _log(arm: Arm, metrics: Mapping[str, float]) -> None:
    shown = ", ".join(f"{key} {metrics[key]:.1f}" for key in ("hal", *KEPT) if key in metrics)
    rate = arm.content["train"]["learning_rate"]
    get_run_logger().info(one_line(f"{arm.name}, learning rate {rate:g}, on validation: {shown}"))
