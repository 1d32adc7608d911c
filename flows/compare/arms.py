"""Arms: named changes of the sections `train` and `steer`, each a way to hallucinate less.

`flows/compare/arms.yaml` says which seeds of the world are compared, which learning rates every
trained arm may choose from on the validation split (the same budget for all), against which arms
Hal is compared, and what an arm changes:

    sft: {train: {w_vag: 0.0, w_dpo: 0.0, w_attn: 0.0}}   trained so, answers plainly
    full_steered: {train: {}, steer: {}}                  trained and steered as params.yaml says
    steering: {steer: {}}                                 the base model, steered

An arm without `train` measures the base model; one without `steer` answers plainly.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import Field, model_validator

from adapt import params
from adapt.generation.settings import SteerConfig
from adapt.params import Content, InputError, Positive, Seed, Settings, require
from adapt.preference.settings import Config as TrainConfig

FILE = Path(__file__).with_name("arms.yaml")


class Changes(Settings):
    """What one arm changes; a section that it does not name is not used at all."""

    train: dict[str, Any] | None = None
    steer: dict[str, Any] | None = None


class ArmsConfig(Settings):
    """Section `arms` of arms.yaml."""

    seeds: Annotated[tuple[Seed, ...], Field(min_length=1)]
    learning_rates: Annotated[tuple[Positive, ...], Field(min_length=1)]
    references: tuple[str, ...]
    named: dict[str, Changes]

    @model_validator(mode="after")
    def _names_are_known(self) -> Self:
        problem = "must have the arm base, which says how much Cover may be lost"
        require("base" in self.named, "named", problem)
        unknown = [name for name in self.references if name not in self.named]
        require(not unknown, "references", f"{unknown} is not among {', '.join(self.named)}")
        return self


@dataclass(frozen=True, kw_only=True)
class Arm:
    """How one arm is trained and steered, None for not at all; `changes` are those of `train`."""

    name: str
    train: TrainConfig | None
    steer: SteerConfig | None
    changes: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """What is compared: the workspace `root`, its params.yaml, the arms; `jobs` at a time."""

    root: Path
    content: Content
    arms: ArmsConfig
    jobs: int

    def arm(self, name: str) -> Arm:
        """The arm `name`; InputError names the arm and the key."""
        return arm_of(self.content, self.arms, name)


def read(path: Path = FILE) -> ArmsConfig:
    """The arms of a file; InputError names the file and the key."""
    return params.load(params.read(path), "arms", ArmsConfig, file=path.name)


def arm_of(content: Content, arms: ArmsConfig, name: str) -> Arm:
    """The arm `name` over a read params.yaml; InputError names the arm and the key."""
    if name not in arms.named:
        raise InputError(f"arms.yaml: unknown arm {name}; known: {', '.join(arms.named)}")
    given, train, steer = arms.named[name], None, None
    try:
        if given.train is not None:
            train = params.load(changed(content, "train", given.train), "train", TrainConfig)
        if given.steer is not None:
            steer = params.load(changed(content, "steer", given.steer), "steer", SteerConfig)
    except InputError as error:
        problem = str(error).removeprefix("params.yaml: ")
        raise InputError(f"arms.yaml: arms.named.{name}: {problem}") from None
    return Arm(name=name, train=train, steer=steer, changes=given.train or {})


def changed(content: Content, section: str, changes: Mapping[str, Any]) -> dict[str, Any]:
    """A read params.yaml with some keys of a section replaced.

    >>> changed({"seed": 1, "train": {"beta": 0.5, "steps": 9}}, "train", {"steps": 3})
    {'seed': 1, 'train': {'beta': 0.5, 'steps': 3}}
    """
    return {**content, section: {**content[section], **changes}}
