"""How much a model hallucinates on the descriptions of a split: a quick check of a base model."""

from collections.abc import Sequence
from typing import Any

from adapt.data.schema import Example, Vocabulary
from adapt.generation.answer import Decoding
from adapt.generation.batches import answered, prompt_of
from adapt.metrics.chair import aggregate, count
from adapt.progress import track


def validate(
    model: Any, processor: Any, rows: Sequence[Example], vocabulary: Vocabulary | None, length: int
) -> dict[str, float]:
    """CHAIR_i, Hal, Cover, Cog (percent) and answer length (tokens, up to `length`), greedy.

    Objects are counted where it is known what is there, and by the words of the vocabulary.
    """
    rows = [row for row in rows if row.kind == "describe"]
    decoding = Decoding(anchor_tokens=1, max_new_tokens=length)
    parts = answered(model, processor, rows, decoding, "auto", prompt_of)
    counts, lengths = [], []
    for batch, answers in track(parts, "validating", len(rows), lambda part: len(part[0])):
        lengths += answers.mask_BT.sum(1).tolist()
        pairs = zip(answers.texts, batch, strict=True)
        if vocabulary is not None:
            known = [(text, row) for text, row in pairs if row.objects is not None]
            counts += [count(text, row, vocabulary) for text, row in known]
    return {**(aggregate(counts) if counts else {}), "length": sum(lengths) / max(len(lengths), 1)}
