"""Arms: named changes of sections of params.yaml, each a way to hallucinate less.

`flows/compare/arms.yaml` says which seeds of the world are compared, which learning rates every
trained arm may choose from on the validation split (the same budget for all), to which arms
differences are taken, and what an arm changes:

    sft: {train: {w_dpo: 0.0, w_attn: 0.0}}               trained so, answers plainly
    shipped_steered: {train: {}, steer: {}}               trained and steered as params.yaml says
    steering: {steer: {}}                                 the base model, steered
    fewer_pairs: {pairs: {images: 1600}, train: {}}       trained on pairs of its own
    noisy: {scenes: {caption_noise: 0.9}, train: {}}      in a world of its own, from data to scores

An arm without `train` measures the base model; one without `steer` answers plainly. An arm that
names a `learning_rate` keeps it. Stages before the first change are shared with the other arms.
Arms of different worlds stand in one table, but no difference is taken between them.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from adapt import params
from adapt.data.settings import ScenesConfig
from adapt.generation.settings import Steering
from adapt.pairs.settings import PairsConfig
from adapt.params import Content, InputError, Positive, Seed, Settings, require
from adapt.preference.settings import Config as TrainConfig

FILE = Path(__file__).with_name("arms.yaml")
SECTIONS: Mapping[str, type[Settings]] = {
    **{"scenes": ScenesConfig, "pairs": PairsConfig},
    **{"train": TrainConfig, "steer": Steering},
}
"""What an arm may change, in the order of the stages that read it."""
Split = Literal["test", "validation"]


class Changes(Settings):
    """What one arm changes; without `train` nothing is trained, without `steer` nothing steered."""

    scenes: dict[str, Any] | None = None
    pairs: dict[str, Any] | None = None
    train: dict[str, Any] | None = None
    steer: dict[str, Any] | None = None

    @property
    def named(self) -> dict[str, dict[str, Any]]:
        """The sections that are named, with their changes."""
        own = (self.scenes, self.pairs, self.train, self.steer)
        sections = zip(SECTIONS, own, strict=True)
        return {name: changes for name, changes in sections if changes is not None}

    @property
    def rate(self) -> float | None:
        """The learning rate that the arm names itself."""
        return (self.train or {}).get("learning_rate")


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
    """How one arm is trained and steered, None for not at all, and its params.yaml as a whole."""

    name: str
    train: TrainConfig | None
    steer: Steering | None
    content: Content
    changes: Changes


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """What is compared on `split`: a workspace, its params.yaml, the arms; `jobs` at a time."""

    root: Path
    content: Content
    arms: ArmsConfig
    jobs: int
    split: Split = "test"

    @property
    def folder(self) -> Path:
        """Where the table goes: that of validation does not take the place of the test split's."""
        return self.root / "results" / ("arms" if self.split == "test" else f"arms-{self.split}")

    def arm(self, name: str) -> Arm:
        """The arm `name`; InputError names the arm and the key."""
        return arm_of(self.content, self.arms, name)

    def base_of(self, arm: Arm) -> Arm:
        """The arm base in the world of `arm`."""
        return replace(self.arm("base"), content=arm.content)


def read(path: Path = FILE) -> ArmsConfig:
    """The arms of a file; InputError names the file and the key."""
    return params.load(params.read(path), "arms", ArmsConfig, file=path.name)


def seeds_of(text: str) -> tuple[int, ...]:
    """The seeds of option --seeds.

    >>> seeds_of("7,8")
    (7, 8)
    """
    for word in text.split(","):
        require(word.isdecimal(), "--seeds", f"{word!r} is not a whole number")
        require(int(word) < params.MAX_SEED, "--seeds", f"must be less than {params.MAX_SEED}")
    return tuple(map(int, text.split(",")))


def arm_of(content: Content, arms: ArmsConfig, name: str) -> Arm:
    """The arm `name` over a read params.yaml; InputError names the arm and the key."""
    if name not in arms.named:
        raise InputError(f"arms.yaml: unknown arm {name}; known: {', '.join(arms.named)}")
    given, loaded = arms.named[name], dict[str, Any]()
    try:
        is_used = given.pairs is None or given.train is not None
        require(is_used, "pairs", "nothing is trained on them; add train: {}")
        for section, changes in given.named.items():
            content = changed(content, section, changes)
            loaded[section] = params.load(content, section, SECTIONS[section])
    except InputError as error:
        problem = str(error).removeprefix("params.yaml: ")
        raise InputError(f"arms.yaml: arms.named.{name}: {problem}") from None
    train, steer = loaded.get("train"), loaded.get("steer")
    return Arm(name=name, train=train, steer=steer, content=content, changes=given)


def changed(content: Content, section: str, changes: Mapping[str, Any]) -> dict[str, Any]:
    """A read params.yaml with some keys of a section replaced.

    >>> changed({"seed": 1, "train": {"beta": 0.5, "steps": 9}}, "train", {"steps": 3})
    {'seed': 1, 'train': {'beta': 0.5, 'steps': 3}}
    """
    return {**content, section: {**content[section], **changes}}
