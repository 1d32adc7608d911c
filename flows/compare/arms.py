"""Arms of a comparison: named changes of the sections `train` and `steer`, each a way to
hallucinate less.

Section `arms` of params.yaml says which seeds of the world are compared, which learning rates every
trained arm may choose from on the validation split (the same budget for all), and what an arm
changes:

    sft: {train: {w_vag: 0.0, w_attn: 0.0}}     trained with these changes, answers plainly
    full_steered: {train: {}, steer: {}}        trained and steered exactly as the sections say
    steering: {steer: {}}                       the base model, steered

An arm without `train` measures the base model; one without `steer` answers plainly.
"""

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from adapt import params
from adapt.generation.steer import SteerConfig
from adapt.params import InputError, require

if TYPE_CHECKING:
    from adapt.preference.settings import Config as TrainConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class ArmsConfig:
    """Section `arms` of params.yaml."""

    seeds: tuple[int, ...]
    learning_rates: tuple[float, ...]
    references: tuple[str, ...]
    named: dict

    def __post_init__(self) -> None:
        require(bool(self.seeds), "seeds", "must name at least one seed")
        require(bool(self.learning_rates), "learning_rates", "must name at least one learning rate")
        require(all(rate > 0 for rate in self.learning_rates), "learning_rates", "must be positive")
        require(
            "base" in self.named,
            "named",
            "must have the arm base, which says how much Cover may be lost",
        )
        for name in self.references:
            require(
                name in self.named, "references", f"{name} is not one of {', '.join(self.named)}"
            )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arm:
    """One arm: how it is trained and how it is steered, None for not at all; `changes` is what it
    says of `train`.
    """

    name: str
    train: "TrainConfig | None"
    steer: SteerConfig | None
    changes: Mapping[str, Any]


def arm_of(content: Mapping[str, Any], name: str) -> Arm:
    """The arm `name` of a read params.yaml; InputError names the arm and the key when either is
    unknown.
    """
    from adapt.preference.settings import Config as TrainConfig

    named = content["arms"]["named"]
    if name not in named:
        raise InputError(f"params.yaml: unknown arm {name}; known: {', '.join(named)}")
    given = named[name] or {}
    for key, changes in given.items():
        known = key in ("train", "steer")
        require(known, f"params.yaml: arms.named.{name}.{key}", "an arm changes train or steer")
        require(
            isinstance(changes, Mapping),
            f"params.yaml: arms.named.{name}.{key}",
            "must be keys and values, or {}",
        )
    try:
        train = (
            params.load(changed(content, "train", given["train"]), "train", TrainConfig)
            if "train" in given
            else None
        )
        steer = (
            params.load(changed(content, "steer", given["steer"]), "steer", SteerConfig)
            if "steer" in given
            else None
        )
    except InputError as error:
        raise InputError(
            f"params.yaml: arms.named.{name}: {str(error).removeprefix('params.yaml: ')}"
        ) from None
    return Arm(name=name, train=train, steer=steer, changes=given.get("train", {}))


def changed(content: Mapping[str, Any], section: str, changes: Mapping[str, Any]) -> dict[str, Any]:
    """A read params.yaml with some keys of a section replaced.

    >>> changed({"seed": 1, "train": {"beta": 0.5, "steps": 9}}, "train", {"steps": 3})
    {'seed': 1, 'train': {'beta': 0.5, 'steps': 3}}
    """
    return {**content, section: {**content[section], **changes}}
