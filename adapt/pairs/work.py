"""What the pairs stage works out, row by row, with the base model.

One of two makers (`given.py`, `sample.py`) works out the rows whose outcome is not known yet; which
is known says a digest of everything that the outcome depends on.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

from adapt.cluster.storage import digest
from adapt.data.schema import Example, Vocabulary
from adapt.generation.answer import Decoding
from adapt.generation.crew import Crew, Facts, Portions, sharers
from adapt.generation.debias import AskedDebias, Debias, Noise
from adapt.models.device import generation_dtype, resolve
from adapt.models.load import load_config, load_model, load_processor
from adapt.models.prompts import prompt_version, token_ranges
from adapt.pairs.annotate import (
    Found,
    LeftOut,
    Outcome,
    Reason,
    given_pair,
    sampled_pair,
)
from adapt.pairs.beginning import given_beginning
from adapt.pairs.dealt import PairsHand, dealt
from adapt.pairs.deciding import inside
from adapt.pairs.filters import active
from adapt.pairs.given import Given, reading_of
from adapt.pairs.kept import VERSION, Kept, row_key
from adapt.pairs.likelihood import Likelihood, few, measured
from adapt.pairs.sample import Sampler, decoding_of
from adapt.pairs.selected import Some, say
from adapt.pairs.settings import PairsConfig
from adapt.pairs.table import Origin, Pair, Span
from adapt.progress import Log, track

# What the outcome of a row depends on, its pictures aside.
GIVEN_BY = ("history", "question", "chosen")
FILTERED_BY = ("rejected", "rejected_images", "chosen_score")
SAMPLED_BY = ("id", "kind", "history", "question", "answer", "objects", "absent")
# What says which rows there are, or is in every digest. All else may make an outcome another one,
# also what is yet to come.
OF_ALL_ROWS = {"source", "limit", "images", "skip", "kinds", "batch", "actors", "actor_cpus"}
OF_ALL_ROWS |= {"keep", "device", "seed", "anchor"}
# What noise is asked for the debias masks. Descriptions look at all of an image. Masks that hung on
# the questions of the data would be others, and with them every anchor, with each new question.
NOISE_QUESTION = "describe the picture."


@dataclass(frozen=True)
class Work:
    """Rows of one kind: how they are worked out, and what an outcome becomes.

    `found` yields where each part begins among the rows that it is given, and the outcomes.
    """

    rows: Sequence[Any]
    found: Callable[[Sequence[Any]], Iterator[tuple[int, Sequence[Outcome]]]]
    key: Callable[[Any], bytes]
    pair: Callable[[Any, Found], Pair]
    label: str

    def do(self, store: Kept, log: Log) -> list[bytes]:
        """Work out what is not known yet, and keep each batch when it is done; returns the keys."""
        keys = [self.key(row) for row in track(self.rows, "looking for what is known")]
        known = store.known(keys)
        places = [i for i, key in enumerate(keys) if key not in known]
        if known:
            same = "with these weights, settings and contents"
            say(f"{len(keys) - len(places)} of {len(keys)} rows are known, {same}")
        pairs = _count([store.get(key) for key in keys if key in known])
        new = Some(self.rows, places)
        found = self.found(new) if places else iter(())
        parts = track(found, self.label, len(new), lambda part: len(part[1]))
        for step, (start, outcomes) in enumerate(parts, 1):
            named = [keys[place] for place in places[start : start + len(outcomes)]]
            store.put(dict(zip(named, outcomes, strict=True)))
            pairs += _count(outcomes)
            log(step, {"pairs": pairs})
        return keys

    def pairs(self, store: Kept, keys: Sequence[bytes], left: Counter[Reason]) -> Iterator[Pair]:
        """The pairs in the order of the rows; a row without one is counted in `left`."""
        for row, key in zip(self.rows, keys, strict=True):
            found = store.get(key)
            if isinstance(found, LeftOut):
                left[found.reason] += 1
            else:
                yield self.pair(row, found)


def _in_order(
    found: Iterator[tuple[Sequence[Any], Sequence[Outcome]]],
) -> Iterator[tuple[int, Sequence[Outcome]]]:
    """Where each of some parts that follow each other begins, and its outcomes."""
    start = 0
    for part, outcomes in found:
        yield start, outcomes
        start += len(part)


def _count(outcomes: Sequence[Outcome]) -> int:
    """How many are pairs."""
    return sum(isinstance(one, Found) for one in outcomes)


@dataclass(frozen=True)
class Loaded:
    """The base model, and what it takes to work with it; `crew` has it where there is one.

    `model_config` is transformers' configuration of it, `facts` what only a loaded model tells.
    """

    config: PairsConfig
    model: Any
    processor: Any
    base: Path
    masks: Path
    model_config: Any
    facts: Facts
    crew: Crew | None = None

    @classmethod
    def of(cls, config: PairsConfig, base: Path, masks: Path, crew: Crew | None = None) -> "Loaded":
        """From a model's folder."""
        processor = load_processor(base)
        if crew is not None:
            crew.open(base, partial(PairsHand.open, crew.device, sharers(crew)))
            asked = (load_config(base), crew.ask("facts"), crew)
            return cls(config, None, processor, base, masks, *asked)
        device = resolve(config.device)
        model = load_model(base, device, generation_dtype(device))
        facts = Facts.of(model, processor)
        return cls(config, model, processor, base, masks, model.config, facts)

    def origin(self) -> Origin:
        """What the tokens of its pairs depend on."""
        kind = self.model_config.model_type
        return Origin(prompt=prompt_version(self.processor), model_type=kind)

    def tokens(self, text: str) -> int:
        """How many tokens an answer has."""
        return len(self.processor.tokenizer(text, add_special_tokens=False)["input_ids"])

    def inside(self, text: str, spans: Sequence[Span]) -> int | None:
        """How many of them stand for characters of the spans; None where it cannot be told."""
        tokenizer = self.processor.tokenizer
        return sum(inside(token_ranges(tokenizer, text), spans)) if tokenizer.is_fast else None

    def likelihood(self, rows: Sequence[Any]) -> Likelihood:
        """How likely it finds the answers of given pairs."""
        if self.crew is not None:
            return self.crew.ask("likelihood", few(rows), self.config)
        return measured(self.config, self.model, self.processor, rows)

    def given(self, rows: Sequence[Any], vocabulary: Vocabulary | None) -> Work:
        """Of given answers: their anchors."""
        config = self.config
        what = ["given"]
        names: tuple[str, ...] = GIVEN_BY
        # An anchor hangs on the chosen answer alone; whether a pair passes, on all of it.
        if filters := active(config):
            names, what = (*GIVEN_BY, *FILTERED_BY), ["given", config.unit, repr(filters)]
        base = self._base(*what)
        is_parted = config.unit == "continuation"

        def pair(row: Any, found: Found) -> Pair:
            prefix = given_beginning(row) if is_parted else ""
            return given_pair(row, found, vocabulary, prefix)

        def alone(rows: Sequence[Any]) -> Iterator[tuple[int, Sequence[Outcome]]]:
            maker = Given(config, self.model, self.processor, self._debias())
            return _in_order(maker.found(rows))

        found = self._found("given", alone, reading_of(config))
        label = "anchors of given answers"
        return Work(rows, found, lambda row: row_key(base, row, names), pair, label)

    def sampled(
        self, rows: Sequence[Example], vocabulary: Vocabulary | None, *, also_given: bool
    ) -> Work:
        """Of questions: answers of the model's own, ranked, and their anchors."""
        config = self.config
        settings = {name: value for name, value in config if name not in OF_ALL_ROWS}
        base = self._base("sampled", repr(vocabulary), settings)
        # A question whose given answers are a pair as well needs a name of its own.
        suffix = " (sampled)" if also_given else ""

        def alone(rows: Sequence[Any]) -> Iterator[tuple[int, Sequence[Outcome]]]:
            model = (self.model, self.processor, vocabulary, self._debias())
            return _in_order(Sampler(config, *model).found(rows))

        return Work(
            rows,
            self._found("sampled", alone, decoding_of(config), vocabulary),
            lambda row: row_key(base, row, SAMPLED_BY),
            lambda row, found: sampled_pair(row, found, row.id + suffix, vocabulary),
            "sampling answers",
        )

    def _found(
        self, method: str, alone: Callable[..., Any], decoding: Decoding, *more: Any
    ) -> Callable[[Sequence[Any]], Iterator[tuple[int, Sequence[Outcome]]]]:
        """`Work.found`: by the crew, or by this process `alone`."""
        if (crew := self.crew) is None:
            return alone
        portions = Portions(self.model_config, self.processor, self._asked_debias(crew))
        return lambda rows: dealt(crew, method, portions, rows, decoding, self.config, *more)

    def _debias(self) -> Debias:
        noise = self._noise()
        asked = (*noise.asked, self.masks, noise.batch)
        return Debias(self.model, self.processor, *asked)

    def _asked_debias(self, crew: Crew) -> AskedDebias:
        noise = self._noise()
        estimate = partial(crew.ask, "masks", noise)
        return AskedDebias(estimate, self.facts.weights, self.processor, noise, self.masks)

    def _noise(self) -> Noise:
        config = self.config
        return Noise((NOISE_QUESTION,), config.anchor, config.seed, config.batch)

    def _base(self, *what: object) -> bytes:
        """A digest of all that outcomes depend on besides their rows."""
        # The files beside the weights: processor, chat template, configuration.
        beside = {
            path.name: path
            for path in self.base.iterdir()
            if path.is_file() and path.suffix not in (".safetensors", ".bin")
        }
        identity = [self.facts.weights, digest(beside), self.facts.device]
        versions = [version(name) for name in ("torch", "transformers")]
        anchor = self.config.anchor.model_dump()
        seed = self.config.seed
        named = [VERSION, identity, versions, anchor, seed, NOISE_QUESTION, [*map(repr, what)]]
        return hashlib.sha256(json.dumps(named).encode()).digest()
