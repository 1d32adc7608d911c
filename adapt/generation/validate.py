"""How much a model hallucinates on the descriptions of a split: a quick check of a base model."""

from collections.abc import Sequence
from typing import Any

from adapt.data.schema import Example, Vocabulary, open_image
from adapt.generation.answer import answer
from adapt.metrics.chair import aggregate, count
from adapt.progress import track

BATCH = 100


def validate(
    model: Any,
    processor: Any,
    rows: Sequence[Example],
    vocabulary: Vocabulary,
    max_new_tokens: int,
) -> dict[str, float]:
    """CHAIR_i, Hal, Cover, Cog (percent) and answer length (tokens) of greedy descriptions."""
    rows = [row for row in rows if row.kind == "describe"]
    counts, lengths = [], []
    for start in track(range(0, len(rows), BATCH), "validating"):
        batch = rows[start : start + BATCH]
        answers = answer(
            model,
            processor,
            [open_image(row) for row in batch],
            [row.question for row in batch],
            anchor_tokens=1,
            max_new_tokens=max_new_tokens,
        )
        lengths += answers.mask_BT.sum(1).tolist()
        counts += [
            count(text, row, vocabulary) for text, row in zip(answers.texts, batch, strict=True)
        ]
    return {**aggregate(counts), "length": sum(lengths) / max(len(lengths), 1)}
