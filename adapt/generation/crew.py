"""Parts that others work out: what a stage asks of a crew, and how it composes what it deals out.

A crew is some processes that have each opened the same model (`adapt/cluster/fan.py`). What one of
them makes depends on the part that it gets and on nothing before it: which rows stand together, and
their debias masks, are settled here, in the order of the rows, before anything is dealt out. So
answers are the same whatever the number of processes, and whatever is made twice.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar

from torch import Tensor

from adapt.attention.layout import Grid, layout_by, unknown
from adapt.generation.batches import Prompt
from adapt.generation.debias import AskedDebias, Noise, Sizes
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
    """

    def __init__(self, config: Any, processor: Any, debias: AskedDebias) -> None:
        if reason := unknown(config):
            raise InputError(reason)
        self._config, self._processor, self._debias = config, processor, debias
        self._grids: dict[Sizes, tuple[Grid, ...]] = {}

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
