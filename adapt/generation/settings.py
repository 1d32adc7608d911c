"""Sections `steer` and `answer`: how answers are made."""

from typing import Literal

from adapt.attention.settings import AnchorConfig, Layers
from adapt.params import Count, Natural, NonNegative, Seed, Settings, Share, Shared


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
    """Section `answer`."""

    batch: Count
    traces: Natural
    anchor: Shared[AnchorConfig]
    steer: Shared[SteerConfig]
    max_new_tokens: Shared[Count]
    seed: Shared[Seed]
