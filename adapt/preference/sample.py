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
from adapt.preference.annotate import Answers, Found, annotation
from adapt.preference.rank import best_and_worst, score
from adapt.preference.settings import PairsConfig


def chosen_rows(rows: Sequence[Example], images: int, seed: int) -> list[Example]:
    """All rows of `images` random images, by kind, so that a batch has answers of one length."""
    ids = sorted({e.image_id for e in rows})
    keep = {ids[i] for i in np.random.default_rng(seed).permutation(len(ids))[:images]}
    return sorted((e for e in rows if e.image_id in keep), key=lambda e: (e.kind, e.id))


@dataclasses.dataclass(frozen=True)
class Sampler:
    """Asks a model several times, ranks its answers by ground truth and reads its anchors."""

    config: PairsConfig
    model: Any
    processor: Any
    vocabulary: Vocabulary | None
    debias: Debias

    def found(
        self, rows: Sequence[Example]
    ) -> Iterator[tuple[Sequence[Example], list[Found | None]]]:
        """The rows in order, in parts that fit into the memory, with what was found for each.

        None for a row whose answers do not differ enough. A row's answers are its own in any part.
        """
        config = self.config
        decoding = Decoding(
            anchor_tokens=config.anchor.anchor_tokens,
            max_new_tokens=config.max_new_tokens,
            debias=self.debias,
            samples=config.samples,
            temperature=config.temperature,
            seed=config.seed,
        )
        asked = (decoding, config.batch, prompt_of, "pairs.batch")
        for part, answers in answered(self.model, self.processor, rows, *asked):
            yield part, self._found(part, answers)

    def _found(self, rows: Sequence[Example], answers: generation.Answers) -> list[Found | None]:
        # 1. The anchor belongs to pictures and question: the mean over their answers is read.
        maps_BLN = first_maps(answers, self.config.anchor.anchor_tokens)
        maps_RLN = maps_BLN.unflatten(0, (len(rows), self.config.samples)).mean(1)
        anchor_RN = anchors(maps_RLN, by_grid(answers.layout), self.debias.masks)
        counts, found = answers.layout.counts_B.tolist(), list[Found | None]()
        # 2. Ground truth ranks a row's answers.
        for i, example in enumerate(rows):
            ranked = self._ranked(example, answers.texts, i)
            if ranked is None:
                found.append(None)
                continue
            # 3. The anchor is kept over the tokens of this model, and over the pictures.
            own = (anchor_RN[i, : counts[i]], answers.layout.of(i), answers.sizes[i])
            where = annotation(self.model, self.processor, *own)
            found.append(Found(annotation=where, answers=ranked))
        return found

    def _ranked(self, example: Example, every: Sequence[str], i: int) -> Answers | None:
        """The answers to prefer and to reject to row i, if two differ enough."""
        samples = self.config.samples
        texts = every[i * samples : (i + 1) * samples]
        scores = [score(text, example, self.vocabulary) for text in texts]
        chosen_and_rejected = best_and_worst(scores, texts, self.config.min_gap)
        if chosen_and_rejected is None:
            return None
        chosen, rejected = chosen_and_rejected
        if not texts[chosen] or not texts[rejected]:  # an empty answer trains nothing
            return None
        return Answers(
            chosen=texts[chosen],
            rejected=texts[rejected],
            chosen_score=scores[chosen],
            rejected_score=scores[rejected],
        )
