"""Preference pairs from a model's own samples, ranked by ground truth, with their visual anchors.

Shapes: R rows, B rows times samples, L layers, N image tokens.
"""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

import numpy as np
from torch import Tensor

from adapt.attention.anchor import visual_anchor
from adapt.attention.layout import Grid
from adapt.data.schema import Example, Vocabulary, open_images, read_split, read_vocabulary
from adapt.generation.answer import Decoding, answer, first_maps
from adapt.generation.debias import debias_masks
from adapt.models.load import load_model, load_processor
from adapt.params import InputError
from adapt.preference.pairs import Pair, write_pairs
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
    sampler = _sampler(config, rows, base, read_vocabulary(splits / "vocabulary.json"))
    pairs: list[Pair] = []
    starts = range(0, len(rows), config.batch)
    for step, start in enumerate(track(starts, "sampling answers"), 1):
        pairs += sampler.pairs(rows[start : start + config.batch], step)
        log(step, {"pairs": len(pairs)})
    if not pairs:
        problem = f"no two of {config.samples} answers differ by {config.min_gap}; no pairs"
        raise InputError(f"pairs.min_gap: {problem}")
    write_pairs(target, pairs)
    return pair_metrics(pairs, len(rows))


def chosen_rows(rows: Sequence[Example], images: int, seed: int) -> list[Example]:
    """All rows of `images` random images, by kind, so that a batch has answers of one length."""
    ids = sorted({e.image_id for e in rows})
    keep = {ids[i] for i in np.random.default_rng(seed).permutation(len(ids))[:images]}
    return sorted((e for e in rows if e.image_id in keep), key=lambda e: (e.kind, e.id))


def _sampler(
    config: PairsConfig, rows: Sequence[Example], base: Path, vocabulary: Vocabulary
) -> "_Sampler":
    """The sampler, with the debias mask of its model.

    Descriptions look at all of an image, so their questions are asked where there are some.
    """
    model, processor = load_model(base), load_processor(base)
    describe = {e.question for e in rows if e.kind == "describe"}
    questions, size = sorted(describe or {e.question for e in rows}), open_images(rows[0])[0].size
    debias = debias_masks(model, processor, questions, size, config.anchor, config.seed)
    return _Sampler(config, model, processor, vocabulary, debias)


@dataclasses.dataclass(frozen=True)
class _Sampler:
    config: PairsConfig
    model: Any
    processor: Any
    vocabulary: Vocabulary
    debias: Mapping[Grid, Tensor]

    def pairs(self, rows: Sequence[Example], step: int) -> Iterator[Pair]:
        """A pair of each row whose answers differ enough; `step` gives each batch its seed."""
        config, anchor_tokens = self.config, self.config.anchor.anchor_tokens
        # 1. Several answers to each question, side by side in one batch.
        sampled: dict[str, Any] = {"samples": config.samples, "temperature": config.temperature}
        sampled |= {"seed": config.seed * 100_003 + step, "max_new_tokens": config.max_new_tokens}
        decoding = Decoding(anchor_tokens=anchor_tokens, **sampled)
        images, questions = [open_images(e) for e in rows], [e.question for e in rows]
        answers = answer(self.model, self.processor, images, questions, decoding)
        # 2. The anchor belongs to image and question: the mean over their answers is read.
        maps_BLN = first_maps(answers, anchor_tokens)
        maps_RLN = maps_BLN.unflatten(0, (len(rows), config.samples)).mean(1)
        anchor_RN = visual_anchor(maps_RLN, answers.grid, self.debias[answers.grid])
        # 3. Ground truth ranks a row's answers.
        for i, (example, anchor) in enumerate(zip(rows, anchor_RN.tolist(), strict=True)):
            texts = answers.texts[i * config.samples : (i + 1) * config.samples]
            scores = [score(text, example, self.vocabulary) for text in texts]
            chosen_and_rejected = best_and_worst(scores, texts, config.min_gap)
            if chosen_and_rejected is None:
                continue
            chosen, rejected = chosen_and_rejected
            if texts[chosen] and texts[rejected]:  # an empty answer trains nothing
                asked = {key: getattr(example, key) for key in ("id", "kind", "images", "question")}
                yield Pair(
                    **asked,
                    **{"chosen": texts[chosen], "chosen_score": scores[chosen]},
                    **{"rejected": texts[rejected], "rejected_score": scores[rejected]},
                    anchor=tuple(anchor),
                    grid=answers.grid,
                )


def pair_metrics(pairs: Sequence[Pair], rows: int) -> dict[str, float]:
    """How many pairs, of which kinds, how far apart, and how often the rejected one is longer."""
    longer = sum(len(p.rejected.split()) > len(p.chosen.split()) for p in pairs)
    kinds = {f"pairs_{kind}": float(sum(p.kind == kind for p in pairs)) for kind in get_args(Kind)}
    gap = sum(p.chosen_score - p.rejected_score for p in pairs) / len(pairs)
    shares = {"yield": len(pairs) / rows, "mean_gap": gap, "rejected_longer": longer / len(pairs)}
    return {"pairs": float(len(pairs)), **kinds, **shares}
