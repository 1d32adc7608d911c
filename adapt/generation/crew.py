"""Parts that others work out: what a stage asks of a crew, and how it composes what it deals out.

A crew is some processes that have each opened the same model (`adapt/cluster/fan.py`). What one of
them makes depends on the part that it gets and on nothing before it: which rows stand together, and
their debias masks, are settled here, in the order of the rows, before anything is dealt out. So
answers are the same whatever the number of processes, and whatever is made twice.
"""

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol, Self, TypeVar

from torch import Tensor

from adapt.attention.layout import Grid, layout_by, unknown
from adapt.generation.answer import Decoding
from adapt.generation.batches import Prompt, fitting, prompt_of
from adapt.generation.debias import AskedDebias, Debias, Noise, Sizes
from adapt.generation.own_config import deciding
from adapt.models.device import generation_dtype, resolve
from adapt.models.identity import content_key
from adapt.models.load import load_model, load_processor
from adapt.models.prompts import encode
from adapt.models.settings import Device
from adapt.params import InputError

T = TypeVar("T")
Masks = dict[Grid, Tensor]


class Crew(Protocol):
    """Processes that have each opened the same thing; `device` is where theirs is."""

    actors: int
    device: Device

    def open(self, folder: Path, opener: Callable[[Path], Any]) -> None:
        """Let each open the model of a folder, and forget what it had open."""

    def ask(self, method: str, *arguments: Any) -> Any:
        """What one of them answers."""

    def each(self, method: str, parts: Iterable[tuple[Any, ...]]) -> Iterator[tuple[int, Any]]:
        """The number of each part and what became of it, in the order in which they are done."""


class Portions:
    """Rows in parts of one size, each with the debias masks of its grids of patches.

    Args:
        config: of the model, as transformers has it; its weights are with others.
        debias: asked in the order of the rows, as by a process that works alone.
        grids: those of prompts with pictures of some sizes, as far as they are known.
    """

    def __init__(
        self,
        config: Any,
        processor: Any,
        debias: AskedDebias,
        grids: dict[Sizes, tuple[Grid, ...]] | None = None,
    ) -> None:
        if reason := unknown(config):
            raise InputError(reason)
        self._config, self._processor, self._debias = config, processor, debias
        self._grids = {} if grids is None else grids

    @property
    def noise(self) -> Noise:
        """What the masks are estimated from."""
        return self._debias.noise

    def of(
        self, rows: Sequence[T], size: int, prompt: Callable[[T], Prompt]
    ) -> Iterator[tuple[list[T], Masks]]:
        """The parts in order; `prompt` makes a row's prompt."""
        for start in range(0, len(rows), size):
            part = [*rows[start : start + size]]
            # Pictures are decoded here as well: what cannot be read is told before it is dealt out.
            met = {grid for row in part for grid in self._met(prompt(row))}
            yield part, {grid: mask for grid, mask in self._debias.masks.items() if grid in met}

    def _met(self, prompt: Prompt) -> tuple[Grid, ...]:
        """The grids of a prompt; the sizes of its pictures alone decide them."""
        sizes = tuple(image.size for image in prompt.images)
        if sizes not in self._grids:
            one = ([prompt.images], [prompt.question])
            inputs = encode(self._processor, *one, histories=[prompt.history])
            views = layout_by(self._config, inputs).views
            self._grids[sizes] = tuple(view.grid for view in views)
        self._debias.meet(self._grids[sizes], sizes)
        return self._grids[sizes]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Facts:
    """What answers depend on that only a loaded model tells: names of weights, numbers, device.

    `ends`: what of its generation config decides an answer.
    """

    weights: str
    dtype: str
    device: str
    ends: tuple[object, ...]

    @classmethod
    def of(cls, model: Any, processor: Any) -> "Facts":
        """Those of a model; reads all of its weights."""
        place = (str(model.dtype), str(model.device.type))
        return cls(
            weights=content_key(model, {}),
            dtype=place[0],
            device=place[1],
            ends=deciding(model, processor),
        )


class Hand:
    """One of a crew: a model, in a process of its own, and what every stage asks of it.

    `sharing`: how many processes share the memory that it may take.
    """

    def __init__(self, model: Any, processor: Any, sharing: int) -> None:
        self.model, self.processor, self._sharing = model, processor, sharing

    @classmethod
    def open(cls, device: Device, sharing: int, folder: Path) -> Self:
        """With the model of a folder."""
        from transformers.utils import logging

        logging.disable_progress_bar()
        place = resolve(device)
        model = load_model(folder, place, generation_dtype(place))
        return cls(model, load_processor(folder), sharing)

    def facts(self) -> Facts:
        """What answers depend on."""
        return Facts.of(self.model, self.processor)

    def masks(self, noise: Noise, sizes: Sizes) -> Masks:
        """The debias masks of prompts whose pictures have these sizes, on the CPU."""
        debias = Debias(self.model, self.processor, *noise.asked, batch=noise.batch)
        return {grid: mask.cpu() for grid, mask in debias.estimated(sizes).items()}

    def fitting(self, rows: Sequence[Any], decoding: Decoding) -> int:
        """How many rows like these are answered at once."""
        prompts = [question(row) for row in rows]
        return fitting(self.model, self.processor, prompts, decoding, self._sharing)

    def debias(self, noise: Noise, masks: Masks) -> Debias:
        """Masks that were dealt out with a part."""
        debias = Debias(self.model, self.processor, *noise.asked, batch=noise.batch)
        device = next(self.model.parameters()).device
        debias.masks |= {grid: mask.to(device) for grid, mask in masks.items()}
        return debias


def sharers(crew: Crew) -> int:
    """How many of a crew may be on one node and share its memory; a GPU is one's alone."""
    return 1 if crew.device == "cuda" else crew.actors


def question(row: Any) -> Prompt:
    """A row's prompt; a picture that cannot be read is named by its question."""
    try:
        return prompt_of(row)
    except InputError as error:
        raise InputError(f"question {row.id}: {error}") from None
