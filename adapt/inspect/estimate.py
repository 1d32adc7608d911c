"""What is estimated of: a model and its sizes; and what an estimate is."""

import dataclasses
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForImageTextToText

from adapt.attention.layout import Layout
from adapt.inspect import memory
from adapt.inspect.sizes import Sizes, sizes_of
from adapt.models.checkpoint.folder import foreign
from adapt.models.load import checkpoint_dtype
from adapt.preference.adapters import adapted_layers
from adapt.preference.prefix import cannot_share
from adapt.preference.settings import Targets, Tower


@dataclasses.dataclass(frozen=True, kw_only=True)
class Estimate:
    """A stage's memory in bytes, part by part, and what one process may have.

    `what` is done at once, in words; `advice`: settings under which it would fit, by key, none
    where it does or where none is known; `auto`: those of its keys that are found without being
    asked.
    """

    what: str
    parts: Mapping[str, int]
    limit: int
    advice: Mapping[str, Any]
    auto: Collection[str] = ()

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


def subject_of(source: str, model: Any, inputs: Any, layout: Layout, is_stored: bool) -> Subject:
    """What memory is worked out from: a model, and a prompt with its layout.

    `is_stored`: whether there are weights in the folder `source`. Raises InputError as `sizes_of`.
    """
    stored = checkpoint_dtype(Path(source).expanduser()) if is_stored else model.config.dtype

    def shares(length: int) -> bool:
        ids = torch.zeros(1, length, dtype=torch.long)
        types = {key: ids for key in inputs.keys() & {"token_type_ids"}}
        # A mixture's auxiliary loss keeps prompts apart, too: adapt/preference/trainer.py.
        is_balanced = getattr(model.config, "output_router_logits", False)
        return not is_balanced and cannot_share(model, {"input_ids": ids, **types}) is None

    return Subject(
        model=model,
        sizes=sizes_of(model, inputs, layout.columns_BN.shape[1]),
        stored=stored or torch.float32,
        shares=shares,
    )


def structure(source: str, config: Any) -> Any:
    """A model's modules by its configuration, which take no memory; `source` is for messages."""
    with foreign(source), torch.device("meta"):
        return AutoModelForImageTextToText.from_config(config)
