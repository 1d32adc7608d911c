"""Sections `steer` and `answer`: how answers are made."""

from typing import Annotated, Literal

from pydantic import field_validator

from adapt.attention.settings import AnchorConfig, Layers
from adapt.benchmarks.settings import Benchmark, require_distinct
from adapt.models.settings import Device
from adapt.params import Count, Natural, NonNegative, Seed, Settings, Share, Shared, either

Batch = Annotated[Count | Literal["auto"], either("auto, or a number of at least 1")]
"""How many questions are answered at once; "auto": as many as the memory holds."""


class SteerConfig(Settings):
    """Section `steer`: attention-supervised inference, docs/method.md section 3.

    With alpha or tau 0 nothing is steered.
    """

    alpha: NonNegative
    tau: NonNegative
    trigger: Literal["mass", "amc"]
    anchor_share: Share
    layers: Layers


class Config(Settings):
    """Section `answer`; `questions` 0: all of a split."""

    batch: Batch
    traces: Natural
    questions: Natural
    benchmarks: tuple[Benchmark, ...]
    anchor: Shared[AnchorConfig]
    steer: Shared[SteerConfig]
    device: Shared[Device]
    max_new_tokens: Shared[Count]
    seed: Shared[Seed]

    @field_validator("benchmarks")
    @classmethod
    def _distinct(cls, benchmarks: tuple[Benchmark, ...]) -> tuple[Benchmark, ...]:
        require_distinct(benchmarks)
        return benchmarks
