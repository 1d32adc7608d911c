"""Preference pairs from a model's own samples, ranked by ground truth, with the visual anchor of each.

Shapes: B rows times samples, L layers, N image tokens.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from adapt.attention.anchor import visual_anchor
from adapt.attention.layout import Grid
from adapt.data.schema import Example, Vocabulary, open_image, read_split, read_vocabulary
from adapt.generation.answer import Decoding, answer, first_maps
from adapt.generation.debias import debias_masks
from adapt.models.load import load_model, load_processor
from adapt.params import InputError
from adapt.preference.pairs import Pair, write_pairs
from adapt.preference.rank import best_and_worst, score
from adapt.preference.settings import PairsConfig
from adapt.progress import Log, track


def sample_pairs(
    config: PairsConfig, splits: Path, base: Path, target: Path, log: Log
) -> dict[str, float]:
    """Sample answers of the model `base`, rank and annotate them, and write the pairs to `target`."""

    vocabulary = read_vocabulary(splits / "vocabulary.json")
    rows = [e for e in read_split(splits / "train.parquet") if e.kind in config.kinds]
    if not rows:
        raise InputError(
            f"pairs.kinds: the training split has no {' or '.join(config.kinds)} questions"
        )
    rows = chosen_rows(rows, config.images, config.seed)
    model, processor = load_model(base), load_processor(base)
    questions = sorted(
        {e.question for e in rows if e.kind == "describe"} or {e.question for e in rows}
    )
    size = open_image(rows[0]).size
    debias = debias_masks(model, processor, questions, size, config.anchor, config.seed)
    pairs: list[Pair] = []
    starts = range(0, len(rows), config.batch)
    for step, start in enumerate(track(starts, "sampling answers"), 1):
        pairs += _pairs_of(
            config, model, processor, rows[start : start + config.batch], vocabulary, debias, step
        )
        log(step, {"pairs": len(pairs)})
    if not pairs:
        raise InputError(
            f"pairs.min_gap: no two of {config.samples} answers differ by {config.min_gap}; no pairs"
        )
    write_pairs(target, pairs)
    return summary(pairs, len(rows))


def chosen_rows(rows: Sequence[Example], images: int, seed: int) -> list[Example]:
    """All rows of a random choice of `images` images, sorted by kind so that a batch has answers of
    one length.
    """
    ids = sorted({e.image_id for e in rows})
    keep = {ids[i] for i in np.random.default_rng(seed).permutation(len(ids))[:images]}
    return sorted((e for e in rows if e.image_id in keep), key=lambda e: (e.kind, e.id))


def _pairs_of(
    config: PairsConfig,
    model: Any,
    processor: Any,
    rows: Sequence[Example],
    vocabulary: Vocabulary,
    debias: Mapping[Grid, Tensor],
    step: int,
) -> list[Pair]:

    n, anchor_tokens = config.samples, config.anchor.anchor_tokens
    decoding = Decoding(
        anchor_tokens=anchor_tokens,
        max_new_tokens=config.max_new_tokens,
        samples=n,
        temperature=config.temperature,
        seed=config.seed * 100_003 + step,
    )
    images, questions = [open_image(e) for e in rows], [e.question for e in rows]
    answers = answer(model, processor, images, questions, decoding)
    maps_BLN = first_maps(answers, anchor_tokens).unflatten(0, (len(rows), n)).mean(1)
    anchors = visual_anchor(maps_BLN, answers.grid, debias[answers.grid]).tolist()
    pairs = []
    for i, (example, anchor) in enumerate(zip(rows, anchors, strict=True)):
        texts = answers.texts[i * n : (i + 1) * n]
        scores = [score(text, example, vocabulary) for text in texts]
        found = best_and_worst(scores, texts, config.min_gap)
        if found and all(texts[k] for k in found):
            pairs.append(
                Pair(
                    id=example.id,
                    kind=example.kind,
                    image=example.image,
                    question=example.question,
                    chosen=texts[found[0]],
                    rejected=texts[found[1]],
                    chosen_score=scores[found[0]],
                    rejected_score=scores[found[1]],
                    anchor=tuple(anchor),
                    grid=answers.grid,
                )
            )
    return pairs


def summary(pairs: Sequence[Pair], rows: int) -> dict[str, float]:
    """How many pairs, of which kinds, how far apart, and whether the rejected answer is the longer
    one.
    """
    longer = sum(len(p.rejected.split()) > len(p.chosen.split()) for p in pairs)
    kinds = {
        f"pairs_{kind}": float(sum(p.kind == kind for p in pairs))
        for kind in ("describe", "exists", "colour")
    }
    return {
        "pairs": float(len(pairs)),
        **kinds,
        "yield": len(pairs) / rows,
        "mean_gap": sum(p.chosen_score - p.rejected_score for p in pairs) / len(pairs),
        "rejected_longer": longer / len(pairs),
    }
