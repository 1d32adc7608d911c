"""Section `pairs`: where preference pairs come from, and which of them are taken."""

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from adapt import params
from adapt.attention.settings import AnchorConfig
from adapt.generation.settings import Batch
from adapt.models.settings import Device
from adapt.params import Count, Natural, Positive, Seed, Settings, Shared, either

Kind = Literal["describe", "exists", "colour"]
KeptKind = Literal["describe", "exists", "colour", "other"]
PairsFrom = Literal["auto", "sample", "given", "both"]


class KeepConfig(Settings):
    """`pairs.keep`: rows with one answer, on which training keeps what the base knew.

    `kinds` are those of the questions, `images` how many pictures they are about; `path` names a
    file in the columns of `adapt/data/columns.py`, or a folder whose `train.parquet` is meant, ""
    the training split.
    """

    kinds: Annotated[tuple[KeptKind, ...], Field(min_length=1)]
    images: Natural
    path: str

    @model_validator(mode="after")
    def _takes_rows_of_its_file(self) -> Self:
        problem = "images is 0, so that no row of it is taken; say of how many pictures"
        params.require(not self.path or self.images > 0, "path", problem)
        return self

    @property
    def file(self) -> Path | None:
        """The file that `path` means; None for the training split."""
        path = Path(self.path)
        return (path / "train.parquet" if path.is_dir() else path) if self.path else None


Unit = Literal["answer", "continuation"]
LeastBest = Annotated[float | Literal["any"], either("any, or a number")]
Window = Annotated[
    tuple[float, float] | Literal["any"], either("any, or [lowest, highest] such as [-3.0, -0.1]")
]
"""Nats per token."""


class PairsConfig(Settings):
    """Section `pairs`; `limit` is of given pairs, the six keys behind it of sampled ones."""

    source: PairsFrom
    limit: Natural
    images: Count
    skip: Natural
    kinds: Annotated[tuple[Kind, ...], Field(min_length=1)]
    samples: Annotated[int, Field(ge=2, le=1024)]  # a pair needs two answers
    temperature: Positive
    min_gap: Positive
    chosen: Literal["any", "truthful"]
    unit: Unit
    min_best: LeastBest
    likelihood: Window
    repeats: Literal["keep", "drop"]
    batch: Batch
    actors: Natural
    actor_cpus: Count
    keep: KeepConfig
    anchor: Shared[AnchorConfig]
    device: Shared[Device]
    max_new_tokens: Shared[Count]
    seed: Shared[Seed]

    @model_validator(mode="after")
    def _has_a_window(self) -> Self:
        if self.likelihood != "any":
            low, high = self.likelihood
            params.require(low < high, "likelihood", f"nothing lies between {low} and {high}")
        return self
