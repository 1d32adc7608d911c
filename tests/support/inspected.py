"""The sections of the default params.yaml with some keys changed, for estimates of memory."""

from typing import Any

from adapt import params
from adapt.inspect.plan import Plans
from tests.support import workspace


def content(batch: Any = 16, lora: bool = False, **train: Any) -> dict[str, Any]:
    """What a params.yaml holds: `batch` of both decoding stages, adapters of rank 4, keys of
    `train`.
    """
    values = params.read(workspace.ROOT / "params.yaml")
    values["pairs"] |= {"batch": batch}
    values["answer"] |= {"batch": batch}
    # The terms and the tower as recipes for published checkpoints have them.
    values["train"] |= {"w_vag": 1.0, "vag_form": "paper", "w_keep": 0.0, "tower": "frozen"}
    values["train"] |= train
    if lora:
        values["train"]["lora"] |= {"rank": 4}
    return values


def plans(batch: Any = 16, lora: bool = False, **train: Any) -> Plans:
    """The same, checked."""
    values = content(batch, lora, **train)
    return Plans.of(values, "params.yaml")
