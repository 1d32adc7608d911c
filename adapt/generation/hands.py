"""Who makes a bench's answers: this process, or a crew of others.

Both give the same. `Here` has the model. `Away` has none: it deals parts out, and what comes back
is what a table takes (`Said`), so that no tensor of a batch leaves the process that made it.
"""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Protocol

from adapt.attention.layout import Grid
from adapt.data.schema import Example
from adapt.generation.answer import Decoding
from adapt.generation.batches import Prompt, answered, fitting, some
from adapt.generation.crew import Crew, Facts, Hand, Masks, Portions, question, sharers
from adapt.generation.debias import AskedDebias, Debias, Noise, Sizes
from adapt.generation.said import Listener, Said
from adapt.generation.settings import Batch
from adapt.models.load import load_config

KEY = "answer.batch"
Met = Callable[[Example], None]
Made = Iterator[tuple[Sequence[Example], list[Said]]]


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

    def __init__(self, model: Any, processor: Any, batch: Batch) -> None:
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

    def __init__(self, crew: Crew, folder: Path, processor: Any, batch: Batch) -> None:
        self._crew, self._processor, self._batch = crew, processor, batch
        self._config, self._grids = load_config(folder), dict[Sizes, tuple[Grid, ...]]()
        crew.open(folder, partial(BenchHand.open, crew.device, sharers(crew)))

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
        size = self._batch
        if not isinstance(size, int):
            size = self._crew.ask("fitting", some(rows), plain)
        out: list[list[Example]] = []  # parts, by their number

        def tasks() -> Iterator[tuple[Any, ...]]:
            portions = Portions(self._config, self._processor, debias, self._grids)
            for part, masks in portions.of(rows, size, partial(_asked, met)):
                out.append(part)
                yield part, plain, debias.noise, masks, signals, longest.count

        for number, every in self._crew.each("heard", tasks()):
            part, out[number] = out[number], []
            pairs = zip(part, every, strict=True)
            yield part, [_thinned(row.id, said, longest) for row, said in pairs]


class BenchHand(Hand):
    """One of a crew that answers a bench's questions."""

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


def _asked(met: Met, row: Example) -> Prompt:
    met(row)
    return question(row)


def _thinned(identity: str, said: Said, longest: Longest) -> Said:
    """Without its maps, where it is not among the longest."""
    return said if longest.takes(said.length, identity) else dataclasses.replace(said, maps=None)
