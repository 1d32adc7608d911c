"""Sections `steer` and `answer`: how answers are made."""

from typing import Annotated, Any, Literal

from pydantic import ValidationError, ValidatorFunctionWrapHandler, WrapValidator

from adapt.attention.settings import AnchorConfig, Layers
from adapt.models.settings import Device
from adapt.params import Count, Natural, NonNegative, Seed, Settings, Share, Shared


def _in_one_line(value: Any, validate: ValidatorFunctionWrapHandler) -> Any:
    try:
        return validate(value)
    except ValidationError:  # one line for each alternative of the type
        problem = f"expected auto, or a number of at least 1, got {value!r}"
        raise ValueError(problem) from None


Batch = Annotated[Count | Literal["auto"], WrapValidator(_in_one_line)]
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
    """Section `answer`."""

    batch: Batch
    traces: Natural
    anchor: Shared[AnchorConfig]
    steer: Shared[SteerConfig]
    device: Shared[Device]
    max_new_tokens: Shared[Count]
    seed: Shared[Seed]
