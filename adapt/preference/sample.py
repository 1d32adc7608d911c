"""Preference pairs from a model's own samples, ranked by ground truth, with their visual anchors.

Shapes: R rows, B rows times samples, L layers, N image tokens.
"""

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, get_args

import numpy as np

from adapt.attention.anchor import anchors, by_grid
from adapt.attention.places import places_of
from adapt.attention.support import support_maps
from adapt.data.schema import Example, Vocabulary, read_vocabulary
from adapt.data.tables import read_split
from adapt.environment import state_dir
from adapt.generation.answer import Answers, Decoding, first_maps
from adapt.generation.batches import answered, prompt_of
from adapt.generation.debias import Debias
from adapt.models.device import generation_dtype, resolve
from adapt.models.load import load_model, load_processor
from adapt.models.prompts import prompt_version
from adapt.params import InputError
from adapt.preference.pairs import Origin, Pair, PairView, write_pairs
from adapt.preference.rank import best_and_worst, score
from adapt.preference.settings import Kind, PairsConfig
from adapt.progress import Log, track


def sample_pairs(
    config: PairsConfig, splits: Path, base: Path, target: Path, log: Log
) -> dict[str, float]:
    """Sample answers of the model `base`, rank and annotate them, and write pairs to `target`."""
    rows = [e for e in read_split(splits / "train.parquet") if e.kind in config.kinds]
    if not rows:
        kinds = " or ".join(config.kinds)
        raise InputError(f"pairs.kinds: the training split has no {kinds} questions")
    rows = chosen_rows(rows, config.images, config.seed)
    kept = state_dir(splits.parents[2]) / "debias"
    sampler = _sampler(config, rows, base, read_vocabulary(splits / "vocabulary.json"), kept)
    pairs: list[Pair] = []
    sampled = track(sampler.answered(rows), "sampling answers", len(rows), lambda p: len(p[0]))
    for step, (batch, answers) in enumerate(sampled, 1):
        pairs += sampler.pairs(batch, answers)
        log(step, {"pairs": len(pairs)})
    if not pairs:
        problem = f"no two of {config.samples} answers differ by {config.min_gap}; no pairs"
        raise InputError(f"pairs.min_gap: {problem}")
    origin = Origin(
        prompt=prompt_version(sampler.processor), model_type=sampler.model.config.model_type
    )
    write_pairs(target, pairs, origin)
    return pair_metrics(pairs, len(rows))


def chosen_rows(rows: Sequence[Example], images: int, seed: int) -> list[Example]:
    """All rows of `images` random images, by kind, so that a batch has answers of one length."""
    ids = sorted({e.image_id for e in rows})
    keep = {ids[i] for i in np.random.default_rng(seed).permutation(len(ids))[:images]}
    return sorted((e for e in rows if e.image_id in keep), key=lambda e: (e.kind, e.id))


def _sampler(
    config: PairsConfig, rows: Sequence[Example], base: Path, vocabulary: Vocabulary, kept: Path
) -> "Sampler":
    """The sampler, with the debias masks of its model, which `kept` keeps.

    Descriptions look at all of an image, so their questions are asked where there are some.
    """
    device = resolve(config.device)
    model = load_model(base, device, generation_dtype(device))
    processor = load_processor(base)
    describe = {e.question for e in rows if e.kind == "describe"}
    questions = sorted(describe or {e.question for e in rows})
    noise = (config.anchor, config.seed, kept, config.batch)
    debias = Debias(model, processor, questions, *noise)
    return Sampler(config, model, processor, vocabulary, debias)


@dataclasses.dataclass(frozen=True)
class Sampler:
    """Asks a model several times, ranks its answers by ground truth and reads its anchors."""

    config: PairsConfig
    model: Any
    processor: Any
    vocabulary: Vocabulary
    debias: Debias

    def answered(self, rows: Sequence[Example]) -> Iterator[tuple[Sequence[Example], Answers]]:
        """Several answers to each question, side by side; a row's are its own in any batch."""
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
        return answered(self.model, self.processor, rows, *asked)

    def pairs(self, rows: Sequence[Example], answers: Answers) -> Iterator[Pair]:
        """A pair of each row whose answers differ enough."""
        # 1. The anchor belongs to pictures and question: the mean over their answers is read.
        maps_BLN = first_maps(answers, self.config.anchor.anchor_tokens)
        maps_RLN = maps_BLN.unflatten(0, (len(rows), self.config.samples)).mean(1)
        anchor_RN = anchors(maps_RLN, by_grid(answers.layout), self.debias.masks)
        counts = answers.layout.counts_B.tolist()
        # 2. Ground truth ranks a row's answers.
        for i, example in enumerate(rows):
            ranked = self._ranked(example, answers, i)
            if ranked is None:
                continue
            # 3. The anchor is kept over the tokens of this model, and over the pictures.
            anchor_N, views = anchor_RN[i, : counts[i]], answers.layout.of(i)
            places = places_of(self.model.config, self.processor, answers.sizes[i])
            maps = support_maps(anchor_N, views, places)
            asked = {key: getattr(example, key) for key in ("id", "kind", "images", "question")}
            yield Pair(
                **asked,
                **ranked,
                anchor=tuple(anchor_N.tolist()),
                views=tuple(PairView.of(view) for view in views),
                support=tuple(one.tobytes() for one in maps),
            )

    def _ranked(self, example: Example, answers: Answers, i: int) -> dict[str, Any] | None:
        """The fields of the answers to prefer and to reject to row i, if two differ enough."""
        samples = self.config.samples
        texts = answers.texts[i * samples : (i + 1) * samples]
        scores = [score(text, example, self.vocabulary) for text in texts]
        chosen_and_rejected = best_and_worst(scores, texts, self.config.min_gap)
        if chosen_and_rejected is None:
            return None
        chosen, rejected = chosen_and_rejected
        if not texts[chosen] or not texts[rejected]:  # an empty answer trains nothing
            return None
        fields = {"chosen": texts[chosen], "chosen_score": scores[chosen]}
        return fields | {"rejected": texts[rejected], "rejected_score": scores[rejected]}


def pair_metrics(pairs: Sequence[Pair], rows: int) -> dict[str, float]:
    """How many pairs, of which kinds, how far apart, and how often the rejected one is longer."""
    longer = sum(len(p.rejected.split()) > len(p.chosen.split()) for p in pairs)
    kinds = {f"pairs_{kind}": float(sum(p.kind == kind for p in pairs)) for kind in get_args(Kind)}
    gap = sum(p.chosen_score - p.rejected_score for p in pairs) / len(pairs)
    shares = {"yield": len(pairs) / rows, "mean_gap": gap, "rejected_longer": longer / len(pairs)}
    return {"pairs": float(len(pairs)), **kinds, **shares}
