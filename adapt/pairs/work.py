"""What the pairs stage works out, row by row, with the base model.

One of two makers (`given.py`, `sample.py`) works out the rows whose outcome is not known yet; which
is known says a digest of everything that the outcome depends on.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from adapt.cluster.storage import digest
from adapt.data.schema import Example, Vocabulary
from adapt.generation.debias import Debias
from adapt.models.device import generation_dtype, resolve
from adapt.models.identity import content_key
from adapt.models.load import load_model, load_processor
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
from adapt.pairs.deciding import inside
from adapt.pairs.filters import active
from adapt.pairs.given import Given
from adapt.pairs.kept import VERSION, Kept, row_key
from adapt.pairs.sample import Sampler
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
OF_ALL_ROWS = {"source", "limit", "images", "skip", "kinds", "batch", "keep"}
OF_ALL_ROWS |= {"device", "seed", "anchor"}
# What noise is asked for the debias masks. Descriptions look at all of an image. Masks that hung on
# the questions of the data would be others, and with them every anchor, with each new question.
NOISE_QUESTION = "describe the picture."


@dataclass(frozen=True)
class Work:
    """Rows of one kind: how they are worked out, and what an outcome becomes."""

    rows: Sequence[Any]
    found: Callable[[Sequence[Any]], Iterator[tuple[Sequence[Any], Sequence[Outcome]]]]
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
        start, new = 0, Some(self.rows, places)
        parts = track(self.found(new), self.label, len(new), lambda part: len(part[0]))
        for step, (part, outcomes) in enumerate(parts, 1):
            named = [keys[place] for place in places[start : start + len(part)]]
            store.put(dict(zip(named, outcomes, strict=True)))
            start, pairs = start + len(part), pairs + _count(outcomes)
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


def _count(outcomes: Sequence[Outcome]) -> int:
    """How many are pairs."""
    return sum(isinstance(one, Found) for one in outcomes)


@dataclass(frozen=True)
class Loaded:
    """The base model, and what it takes to work with it."""

    config: PairsConfig
    model: Any
    processor: Any
    base: Path
    masks: Path

    @classmethod
    def of(cls, config: PairsConfig, base: Path, masks: Path) -> "Loaded":
        """From a model's folder."""
        device = resolve(config.device)
        model = load_model(base, device, generation_dtype(device))
        return cls(config, model, load_processor(base), base, masks)

    def origin(self) -> Origin:
        """What the tokens of its pairs depend on."""
        kind = self.model.config.model_type
        return Origin(prompt=prompt_version(self.processor), model_type=kind)

    def tokens(self, text: str) -> int:
        """How many tokens an answer has."""
        return len(self.processor.tokenizer(text, add_special_tokens=False)["input_ids"])

    def inside(self, text: str, spans: Sequence[Span]) -> int | None:
        """How many of them stand for characters of the spans; None where it cannot be told."""
        tokenizer = self.processor.tokenizer
        return sum(inside(token_ranges(tokenizer, text), spans)) if tokenizer.is_fast else None

    def given(self, rows: Sequence[Any], vocabulary: Vocabulary | None) -> Work:
        """Of given answers: their anchors."""
        config = self.config
        maker = Given(config, self.model, self.processor, self._debias())
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

        label = "anchors of given answers"
        return Work(rows, maker.found, lambda row: row_key(base, row, names), pair, label)

    def sampled(
        self, rows: Sequence[Example], vocabulary: Vocabulary | None, *, also_given: bool
    ) -> Work:
        """Of questions: answers of the model's own, ranked, and their anchors."""
        debias = self._debias()
        maker = Sampler(self.config, self.model, self.processor, vocabulary, debias)
        settings = {name: value for name, value in self.config if name not in OF_ALL_ROWS}
        base = self._base("sampled", repr(vocabulary), settings)
        # A question whose given answers are a pair as well needs a name of its own.
        suffix = " (sampled)" if also_given else ""
        return Work(
            rows,
            maker.found,
            lambda row: row_key(base, row, SAMPLED_BY),
            lambda row, found: sampled_pair(row, found, row.id + suffix, vocabulary),
            "sampling answers",
        )

    def _debias(self) -> Debias:
        config = self.config
        noise = (config.anchor, config.seed, self.masks, config.batch)
        return Debias(self.model, self.processor, [NOISE_QUESTION], *noise)

    def _base(self, *what: object) -> bytes:
        """A digest of all that outcomes depend on besides their rows."""
        # The files beside the weights: processor, chat template, configuration.
        beside = {
            path.name: path
            for path in self.base.iterdir()
            if path.is_file() and path.suffix not in (".safetensors", ".bin")
        }
        identity = [content_key(self.model, {}), digest(beside), str(self.model.device.type)]
        versions = [version(name) for name in ("torch", "transformers")]
        anchor = self.config.anchor.model_dump()
        seed = self.config.seed
        named = [VERSION, identity, versions, anchor, seed, NOISE_QUESTION, [*map(repr, what)]]
        return hashlib.sha256(json.dumps(named).encode()).digest()
