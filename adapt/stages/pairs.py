"""Stage `pairs`: preference pairs from the base model's own samples, with the visual anchor of each
image-question.

For a random part of the training images, several answers to every question are sampled; ground
truth ranks them, the best and the worst are kept when they differ enough. The anchor is read from
the first K tokens of the same samples. Writes `pairs.parquet`.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adapt.attention.anchor import AnchorConfig
from adapt.data.schema import KINDS
from adapt.params import InputError, require, shared

if TYPE_CHECKING:
    from torch import Tensor

    from adapt.data.schema import Example, Vocabulary
    from adapt.preference.pairs import Pair

Log = Callable[[int, Mapping[str, float]], None]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """Section `pairs`, with the shared `anchor` and `seed`."""

    images: int
    kinds: tuple[str, ...]
    samples: int
    temperature: float
    min_gap: float
    batch: int
    anchor: AnchorConfig = shared()
    max_new_tokens: int = shared()
    seed: int = shared()

    def __post_init__(self) -> None:
        require(self.images >= 1, "images", f"must be at least 1, got {self.images}")
        require(bool(self.kinds), "kinds", f"must name at least one of {', '.join(KINDS)}")
        unknown = [kind for kind in self.kinds if kind not in KINDS]
        require(not unknown, "kinds", f"{', '.join(unknown)} is not one of {', '.join(KINDS)}")
        require(self.batch >= 1, "batch", f"must be at least 1, got {self.batch}")
        require(
            self.max_new_tokens >= 1,
            "max_new_tokens",
            f"must be at least 1, got {self.max_new_tokens}",
        )
        require(
            self.samples >= 2, "samples", f"a pair needs at least 2 answers, got {self.samples}"
        )
        require(self.temperature > 0, "temperature", f"must be positive, got {self.temperature}")
        require(self.min_gap > 0, "min_gap", f"must be positive, got {self.min_gap}")


def run(config: Config, results: Path, out: Path, log: Log) -> dict[str, float]:
    """Sample, rank, annotate; see the module docstring."""
    from adapt.data.schema import open_image, read_split, read_vocabulary
    from adapt.generation.answer import estimate_debias
    from adapt.models.load import load_model, load_processor
    from adapt.preference.pairs import write_pairs
    from adapt.progress import track

    splits, base = results / "data" / "splits", results / "base" / "model"
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
    debias_N = estimate_debias(
        model,
        processor,
        questions,
        open_image(rows[0]).size,
        count=config.anchor.noise_images,
        anchor_tokens=config.anchor.anchor_tokens,
        seed=config.seed,
    )
    pairs: list[Pair] = []
    starts = range(0, len(rows), config.batch)
    for step, start in enumerate(track(starts, "sampling answers"), 1):
        pairs += _pairs_of(
            config, model, processor, rows[start : start + config.batch], vocabulary, debias_N, step
        )
        log(step, {"pairs": len(pairs)})
    if not pairs:
        raise InputError(
            f"pairs.min_gap: no two of {config.samples} answers differ by {config.min_gap}; no pairs"
        )
    write_pairs(out / "pairs.parquet", pairs)
    return figures(pairs, len(rows))


def chosen_rows(rows: Sequence["Example"], images: int, seed: int) -> list["Example"]:
    """All rows of a random choice of `images` images, sorted by kind so that a batch has answers of
    one length.
    """
    import numpy as np

    ids = sorted({e.image_id for e in rows})
    keep = {ids[i] for i in np.random.default_rng(seed).permutation(len(ids))[:images]}
    return sorted((e for e in rows if e.image_id in keep), key=lambda e: (e.kind, e.id))


def _pairs_of(
    config: Config,
    model: Any,
    processor: Any,
    rows: Sequence["Example"],
    vocabulary: "Vocabulary",
    debias_N: "Tensor",
    step: int,
) -> list["Pair"]:
    from adapt.attention.anchor import visual_anchor
    from adapt.data.schema import open_image
    from adapt.generation.answer import answer, first_maps
    from adapt.preference.pairs import Pair
    from adapt.preference.rank import best_and_worst, score

    n, anchor_tokens = config.samples, config.anchor.anchor_tokens
    answers = answer(
        model,
        processor,
        [open_image(e) for e in rows],
        [e.question for e in rows],
        anchor_tokens=anchor_tokens,
        max_new_tokens=config.max_new_tokens,
        samples=n,
        temperature=config.temperature,
        seed=config.seed * 100_003 + step,
    )
    maps_BLN = first_maps(answers, anchor_tokens).unflatten(0, (len(rows), n)).mean(1)
    anchors = visual_anchor(maps_BLN, answers.grid, debias_N).tolist()
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


def figures(pairs: Sequence["Pair"], rows: int) -> dict[str, float]:
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


if __name__ == "__main__":
    from adapt.launch import launch

    launch("pairs")
