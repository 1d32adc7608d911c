"""What is estimated of: a model and its sizes; and what an estimate is."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import torch

from adapt.inspect import memory
from adapt.inspect.sizes import Sizes
from adapt.preference.adapters import adapted_layers
from adapt.preference.settings import Targets, Tower


@dataclasses.dataclass(frozen=True, kw_only=True)
class Estimate:
    """A stage's memory in bytes, part by part, and what one process may have.

    `what` is done at once, in words; `advice`: settings under which it would fit, by key, none
    where it does or where none is known.
    """

    what: str
    parts: Mapping[str, int]
    limit: int
    advice: Mapping[str, Any]

    @property
    def total(self) -> int:
        """Bytes at the peak."""
        return memory.total(self.parts)

    @property
    def fits(self) -> bool:
        """Whether the peak is within the limit."""
        return self.total <= self.limit


@dataclasses.dataclass(frozen=True, kw_only=True)
class Subject:
    """A model, its sizes and what its checkpoint is stored in; `shares` is asked with a length of
    sequences: whether the answers of a pair may share their prompt.
    """

    model: Any
    sizes: Sizes
    stored: torch.dtype
    shares: Callable[[int], bool]
    _adapted: dict[tuple[Tower, Targets], list[str]] = dataclasses.field(default_factory=dict)

    def adapted(self, tower: Tower, targets: Targets) -> list[str]:
        """The layers that get adapters; a large model has so many that they are looked up once."""
        key = (tower, targets)
        if key not in self._adapted:
            self._adapted[key] = adapted_layers(self.model, tower, targets)
        return self._adapted[key]
