"""Sections `steer` and `answer`: how answers are made."""

from itertools import product
from typing import Annotated, Literal

from pydantic import Field, field_validator

from adapt.attention.settings import AnchorConfig, Layers
from adapt.benchmarks.settings import Benchmark, require_distinct
from adapt.models.settings import Device
from adapt.params import Count, Natural, NonNegative, Seed, Settings, Share, Shared, either

Batch = Annotated[Count | Literal["auto"], either("auto, or a number of at least 1")]
"""How many questions are answered at once; "auto": as many as the memory holds."""


Trigger = Literal["mass", "amc"]


class SteerConfig(Settings):
    """The rule by which a model is steered: attention-supervised inference, docs/method.md 3."""

    alpha: NonNegative
    tau: NonNegative
    trigger: Trigger
    anchor_share: Share
    layers: Layers

    @property
    def acts(self) -> bool:
        """Whether it changes anything: with alpha or tau 0 answers are plain."""
        return self.alpha > 0 and self.tau > 0

    @property
    def told(self) -> str:
        """The rule in a line.

        >>> values = {"alpha": 1.2, "tau": 0.9, "trigger": "mass", "anchor_share": 0.1}
        >>> SteerConfig(**values, layers=(0, 1)).told
        'alpha 1.2, tau 0.9, trigger mass, anchor_share 0.1, layers [0, 1]'
        """
        layers = "all" if self.layers == "all" else list(self.layers)
        numbers = f"alpha {self.alpha:g}, tau {self.tau:g}, trigger {self.trigger}"
        return f"{numbers}, anchor_share {self.anchor_share:g}, layers {layers}"


_Number = Annotated[NonNegative | Literal["auto"], either("auto, or a number of at least 0")]
_Layers = Annotated[
    Literal["auto"] | Layers, either("auto, all, or layers counted from 0 such as [0, 1]")
]
_Listed = Annotated[tuple[NonNegative, ...], Field(min_length=1)]


class SteerGrid(Settings):
    """`steer.grid`: from what a key that is `auto` is chosen; `descriptions` 0: all there are."""

    alpha: _Listed
    tau: _Listed
    layers: Annotated[tuple[Layers, ...], Field(min_length=1)]
    descriptions: Natural


class Steering(Settings):
    """Section `steer`: the rule, or `auto` where stage `answer` chooses a value for each model.

    `adapt/generation/chosen.py` chooses.
    """

    alpha: _Number
    tau: _Number
    trigger: Trigger
    anchor_share: Share
    layers: _Layers
    grid: SteerGrid

    @property
    def auto(self) -> tuple[str, ...]:
        """The keys whose value is to be chosen."""
        values = {"alpha": self.alpha, "tau": self.tau, "layers": self.layers}
        return tuple(name for name, value in values.items() if value == "auto")

    @property
    def rules(self) -> tuple[SteerConfig, ...]:
        """The rules to choose from, in the order of the grid; of those that do nothing, one."""
        alphas = self.grid.alpha if self.alpha == "auto" else (self.alpha,)
        taus = self.grid.tau if self.tau == "auto" else (self.tau,)
        layers = self.grid.layers if self.layers == "auto" else (self.layers,)
        found: dict[SteerConfig | None, SteerConfig] = {}
        for alpha, tau, of in product(alphas, taus, layers):
            rule = SteerConfig(
                alpha=alpha,
                tau=tau,
                trigger=self.trigger,
                anchor_share=self.anchor_share,
                layers=of,
            )
            found.setdefault(rule if rule.acts else None, rule)
        return tuple(found.values())


class Config(Settings):
    """Section `answer`; `questions` 0: all of a split, `actors` 0: in the stage's process."""

    batch: Batch
    actors: Natural
    actor_cpus: Count
    traces: Natural
    questions: Natural
    benchmarks: tuple[Benchmark, ...]
    anchor: Shared[AnchorConfig]
    steer: Shared[Steering]
    device: Shared[Device]
    max_new_tokens: Shared[Count]
    seed: Shared[Seed]

    @field_validator("benchmarks")
    @classmethod
    def _distinct(cls, benchmarks: tuple[Benchmark, ...]) -> tuple[Benchmark, ...]:
        require_distinct(benchmarks)
        return benchmarks
