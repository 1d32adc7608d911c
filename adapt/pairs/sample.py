"""Pairs of a model's own answers, ranked by ground truth, with their visual anchors.

Shapes: R rows, B rows times samples, L layers, N image tokens.
"""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from adapt.attention.anchor import anchors, by_grid
from adapt.data.schema import Example, Vocabulary
from adapt.generation import answer as generation
from adapt.generation.answer import Decoding, first_maps
from adapt.generation.batches import answered, prompt_of
from adapt.generation.debias import Debias
from adapt.pairs.annotate import Found, LeftOut, Outcome, annotation
from adapt.pairs.choose import Chooser
from adapt.pairs.settings import PairsConfig
from adapt.params import require


def pictures_of(rows: Sequence[Example], seed: int) -> list[str]:
    """The ids of all pictures that rows are about, in a random order."""
    ids = sorted({e.image_id for e in rows})
    return [ids[i] for i in np.random.default_rng(seed).permutation(len(ids))]


def chosen_rows(
    rows: Sequence[Example], images: int, seed: int, skip: int = 0
) -> tuple[list[Example], list[str]]:
    """All rows of `images` random images, by kind, so that a batch has answers of one length.

    The first `skip` of the same random order are left to other rounds; their ids come second.
    Raises InputError where that is all of them.
    """
    order = pictures_of(rows, seed)
    problem = f"{skip} pictures are left to other rounds, and there are {len(order)}; lower it"
    require(skip < len(order), "pairs.skip", problem)
    keep = {*order[skip : skip + images]}
    chosen = sorted((e for e in rows if e.image_id in keep), key=lambda e: (e.kind, e.id))
    return chosen, order[:skip]


@dataclasses.dataclass(frozen=True)
class Sampler:
    """Asks a model several times, ranks its answers by ground truth and reads its anchors."""

    config: PairsConfig
    model: Any
    processor: Any
    vocabulary: Vocabulary | None
    debias: Debias

    def found(self, rows: Sequence[Example]) -> Iterator[tuple[Sequence[Example], list[Outcome]]]:
        """The rows in order, in parts that fit into the memory, with what was found for each.

        A row's answers are its own in any part.
        """
        asked = (self._with_masks(), self.config.batch, prompt_of, "pairs.batch")
        for part, answers in answered(self.model, self.processor, rows, *asked):
            yield part, self._found(part, answers)

    def _with_masks(self) -> Decoding:
        return dataclasses.replace(decoding_of(self.config), debias=self.debias)

    def _found(self, rows: Sequence[Example], answers: generation.Answers) -> list[Outcome]:
        # 1. The anchor belongs to pictures and question: the mean over their answers is read.
        maps_BLN = first_maps(answers, self.config.anchor.anchor_tokens)
        maps_RLN = maps_BLN.unflatten(0, (len(rows), self.config.samples)).mean(1)
        anchor_RN = anchors(maps_RLN, by_grid(answers.layout), self.debias.masks)
        counts, found = answers.layout.counts_B.tolist(), list[Outcome]()
        # 2. Ground truth ranks a row's answers.
        chooser = Chooser(
            self.config, self.model, self.processor, self.vocabulary, self._with_masks()
        )
        for i, ranked in enumerate(chooser.pairs(rows, answers.texts)):
            if isinstance(ranked, LeftOut):
                found.append(ranked)
                continue
            # 3. The anchor is kept over the tokens of this model, and over the pictures.
            own = (anchor_RN[i, : counts[i]], answers.layout.of(i), answers.sizes[i])
            where = annotation(self.model, self.processor, *own)
            found.append(Found(annotation=where, answers=ranked))
        return found


def decoding_of(config: PairsConfig) -> Decoding:
    """How answers are sampled, but for debias masks."""
    return Decoding(
        anchor_tokens=config.anchor.anchor_tokens,
        max_new_tokens=config.max_new_tokens,
        samples=config.samples,
        temperature=config.temperature,
        seed=config.seed,
    )
