"""Who makes a bench's answers: this process, or a crew of others.

Both give the same. `Here` has the model. `Away` has none: it deals parts out, and what comes back
is what a table takes (`Said`), so that no tensor of a batch leaves the process that made it.
"""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Protocol

from adapt.data.schema import Example
from adapt.generation.batches import Prompt, answered, fitting, prompt_of, some
from adapt.generation.crew import Crew, Masks, Portions
from adapt.generation.debias import AskedDebias, Debias, Noise, Sizes
from adapt.generation.decoding.answer import Decoding
from adapt.generation.decoding.own_config import deciding
from adapt.generation.said import Listener, Said
from adapt.models.device import generation_dtype, resolve
from adapt.models.identity import content_key
from adapt.models.load import load_config, load_model, load_processor
from adapt.models.settings import Device
from adapt.params import InputError

KEY = "answer.batch"
Met = Callable[[Example], None]
Made = Iterator[tuple[Sequence[Example], list[Said]]]


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


class Longest:
    """Which answers are among the `count` longest of those that came so far."""

    def __init__(self, count: int) -> None:
        self.count, self._best = count, list[tuple[int, str]]()

    def takes(self, length: int, identity: str) -> bool:
        """Take notice of an answer, and say whether it is one of them."""
        self._best = sorted([*self._best, (-length, identity)])[: self.count]
        return (-length, identity) in self._best


class Hands(Protocol):
    """What makes answers."""

    @property
    def facts(self) -> Facts:
        """What they depend on."""

    def debias(self, noise: Noise, folder: Path | None) -> Debias:
        """Masks, as far as none is kept in the folder."""

    def made(
        self, rows: Sequence[Example], decoding: Decoding, signals: bool, longest: Longest, met: Met
    ) -> Made:
        """The rows in parts, each with its answers; `signals`: with columns by token.

        `longest` says which answers have maps of each token, `met` is called with each row before
        it is asked.
        """


class Here:
    """The model in this process; `batch` is how many rows are answered at once."""

    def __init__(self, model: Any, processor: Any, batch: Any) -> None:
        self.model, self.processor, self._batch = model, processor, batch

    @cached_property
    def facts(self) -> Facts:
        """As `Hands.facts`."""
        return Facts.of(self.model, self.processor)

    def debias(self, noise: Noise, folder: Path | None) -> Debias:
        """As `Hands.debias`."""
        return Debias(self.model, self.processor, *noise.asked, folder=folder, batch=noise.batch)

    def made(
        self, rows: Sequence[Example], decoding: Decoding, signals: bool, longest: Longest, met: Met
    ) -> Made:
        """As `Hands.made`; the rows come in their order."""
        listener, size = Listener(self.model, self.processor, decoding.anchor_tokens), self._batch
        if not isinstance(size, int):
            few = [question(row) for row in some(rows)]
            size = fitting(self.model, self.processor, few, decoding)

        asked = (decoding, size, partial(_asked, met), KEY)
        for part, answers in answered(self.model, self.processor, rows, *asked):
            lengths, ids = answers.mask_BT.sum(1).tolist(), [row.id for row in part]
            traced = [longest.takes(*one) for one in zip(lengths, ids, strict=True)]
            yield part, listener.heard(answers, signals, traced)


class Away:
    """A crew that has the model of a folder open."""

    def __init__(self, crew: Crew, folder: Path, processor: Any, batch: Any) -> None:
        self._crew, self._processor, self._batch = crew, processor, batch
        self._config = load_config(folder)
        crew.open(folder, partial(Hand.open, crew.device, sharers(crew)))

    @cached_property
    def facts(self) -> Facts:
        """As `Hands.facts`."""
        return self._crew.ask("facts")

    def debias(self, noise: Noise, folder: Path | None) -> Debias:
        """As `Hands.debias`."""
        estimate = partial(self._crew.ask, "masks", noise)
        return AskedDebias(estimate, self.facts.weights, self._processor, noise, folder)

    def made(
        self, rows: Sequence[Example], decoding: Decoding, signals: bool, longest: Longest, met: Met
    ) -> Made:
        """As `Hands.made`; a part comes when it is done."""
        debias, plain = decoding.debias, dataclasses.replace(decoding, debias=None)
        assert isinstance(debias, AskedDebias), "made by `debias`"
        is_given = isinstance(self._batch, int)
        size = self._batch if is_given else self._crew.ask("fitting", some(rows), plain)
        out: list[list[Example]] = []  # parts, by their number

        def tasks() -> Iterator[tuple[Any, ...]]:
            portions = Portions(self._config, self._processor, debias)
            for part, masks in portions.of(rows, size, partial(_asked, met)):
                out.append(part)
                yield part, plain, debias.noise, masks, signals, longest.count

        for number, every in self._crew.each("heard", tasks()):
            part, out[number] = out[number], []
            pairs = zip(part, every, strict=True)
            yield part, [_thinned(row.id, said, longest) for row, said in pairs]


class Hand:
    """One of a crew: a model, in a process of its own, and what is asked of it.

    `sharing`: how many processes share the memory that it may take.
    """

    def __init__(self, model: Any, processor: Any, sharing: int) -> None:
        self.model, self.processor, self._sharing = model, processor, sharing

    @classmethod
    def open(cls, device: Device, sharing: int, folder: Path) -> "Hand":
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

    def heard(
        self,
        rows: Sequence[Example],
        decoding: Decoding,
        noise: Noise,
        masks: Masks,
        signals: bool,
        traces: int,
    ) -> list[Said]:
        """The answers of one part; maps of the `traces` longest of them, and of a few more."""
        here, longest = Here(self.model, self.processor, len(rows)), Longest(traces)
        with_masks = dataclasses.replace(decoding, debias=self.debias(noise, masks))
        made = here.made(rows, with_masks, signals, longest, lambda row: None)
        return [one for _, said in made for one in said]


def sharers(crew: Crew) -> int:
    """How many of a crew may be on one node and share its memory; a GPU is one's alone."""
    return 1 if crew.device == "cuda" else crew.actors


def question(row: Any) -> Prompt:
    """A row's prompt; a picture that cannot be read is named by its question."""
    try:
        return prompt_of(row)
    except InputError as error:
        raise InputError(f"question {row.id}: {error}") from None


def _asked(met: Met, row: Example) -> Prompt:
    met(row)
    return question(row)


def _thinned(identity: str, said: Said, longest: Longest) -> Said:
    """Without its maps, where it is not among the longest."""
    return said if longest.takes(said.length, identity) else dataclasses.replace(said, maps=None)
