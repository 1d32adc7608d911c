"""Section `gate` of params.yaml: what a tuned model has to show before it becomes the champion.

A mapping of metrics to rules. A metric is one of the test split (`hal`, `cover`, `pope_f1`,
`mass_late_early`, ...) or of a benchmark of `answer.benchmarks`, as `<label>.<metric>`
(`amber.hal`, `pope.f1`); a rule says one of

    drop: 0.0        it has to fall by more than this (points)
    rise: 0.0        it has to rise by more than this
    max_loss: 2.0    it may get worse by up to this, whichever way is worse
    max: 10.0        it may be at most this, whatever the champion's is
    min: 80.0        it has to be at least this

of the measured value, or with `confidence: 0.95` of the whole 95 % interval over images.

Beside the rules, `approval: required` lets a model that passes wait until a person approves it;
`approval: none` is what holds where it is not given.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import ConfigDict, Field, model_validator

from adapt.metrics.measures import BENCHMARKS, SPLIT, Measure, measure, parts
from adapt.params import NonNegative, Settings, hint, require

APPROVAL = "approval"  # the key of the section that is no metric
DEMANDS = ("drop", "rise", "max_loss", "max", "min")


class Rule(Settings):
    """What is asked of one metric, in its own unit; exactly one of `DEMANDS`."""

    drop: NonNegative | None = None
    rise: NonNegative | None = None
    max_loss: NonNegative | None = None
    max: float | None = None
    min: float | None = None
    confidence: Annotated[float, Field(gt=0, lt=1)] | None = None

    @model_validator(mode="after")
    def _asks_one_thing(self) -> Self:
        given = [name for name in DEMANDS if getattr(self, name) is not None]
        if len(given) != 1:
            got = " and ".join(given) or "none of them"
            raise ValueError(f"expected one of {', '.join(DEMANDS)}, got {got}")
        return self

    @property
    def demand(self) -> tuple[str, float]:
        """Which of `DEMANDS`, and its value."""
        values = (self.drop, self.rise, self.max_loss, self.max, self.min)
        given = zip(DEMANDS, values, strict=True)
        return next((name, value) for name, value in given if value is not None)

    @property
    def compares(self) -> bool:
        """Whether it needs the champion's value too."""
        return self.demand[0] in ("drop", "rise", "max_loss")


class Rules(Settings):
    """Section `gate`: a rule for each metric that it names, and whether a person has to approve."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, Rule]
    approval: Literal["none", "required"] = "none"

    @property
    def named(self) -> Mapping[str, Rule]:
        """The rules by metric, in the order of the file."""
        return self.model_extra or {}

    # Names come first: what stands under an unknown one need not be a rule at all.
    @model_validator(mode="before")
    @classmethod
    def _metrics_are_known(cls, values: Any) -> Any:
        if isinstance(values, Mapping):
            metrics = [str(key) for key in values if key != APPROVAL]
            if not metrics:
                raise ValueError("must have a rule for at least one metric")
            for key in metrics:
                known = "." in key or key in SPLIT
                require(known, key, f"unknown metric; {hint(key, SPLIT, 'gate')}")
        return values

    @model_validator(mode="after")
    def _split_rules_can_be_judged(self) -> Self:
        for key, rule in self.named.items():
            if "." not in key:
                _require_judgeable(key, rule, SPLIT[key])
        return self

    def require_known(self, labels: Mapping[str, str]) -> None:
        """`InputError` for a rule on a benchmark that is not asked, or on what it does not measure.

        `labels`: the name of the benchmark behind each label of `answer.benchmarks`.
        """
        for key, rule in self.named.items():
            label, metric = parts(key)
            if not label:
                continue
            entry = f"{{name: {label if label in BENCHMARKS else '...'}, path: ...}}"
            listed = f"; labels there: {', '.join(labels)}" if labels else ""
            problem = f"no benchmark is called {label}; add {entry} to answer.benchmarks{listed}"
            require(label in labels, f"gate.{key}", problem)
            known = BENCHMARKS[labels[label]]
            problem = f"unknown metric of {labels[label]}; {hint(metric, known, f'gate.{label}')}"
            require(metric in known, f"gate.{key}", problem)
            _require_judgeable(f"gate.{key}", rule, measure(key, labels))


def _require_judgeable(key: str, rule: Rule, of: Measure) -> None:
    """`InputError` for a rule that this metric cannot have."""
    problem = f"neither way is worse for {of.name}; take drop, rise, max or min"
    require(rule.max_loss is None or bool(of.better), f"{key}.max_loss", problem)
    problem = f"{of.name} is no ratio over images and has no interval; leave confidence out"
    require(rule.confidence is None or of.resampled, f"{key}.confidence", problem)
