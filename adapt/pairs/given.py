"""Anchors of answers that were given: read from a pass over their first tokens, not generated.

The anchor of a generated answer is the mean attention of the K steps that chose its first tokens
(docs/method.md, section 2). A decoder that is given those tokens attends in the same way at the
same places, so that one pass over prompt and tokens reads what generation would have read.

Shapes: B rows, K anchor tokens, L layers, N image tokens.
"""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from adapt.attention.anchor import anchors, by_grid
from adapt.attention.capture import RowCapture, observed
from adapt.attention.layout import Layout, layout_of
from adapt.attention.trace import mean_of_first
from adapt.data.schema import Preference
from adapt.generation.answer import DebiasMasks, Decoding
from adapt.generation.batches import Prompt, fitting, halved, prompt_of, some
from adapt.models.continued import response_rows
from adapt.pairs.annotate import Answers, Found, Outcome, annotation
from adapt.pairs.beginning import given_beginning
from adapt.pairs.filters import Filters
from adapt.pairs.forced import sequences, spoken
from adapt.pairs.settings import PairsConfig


@dataclasses.dataclass(frozen=True)
class Given:
    """Reads the anchors of preference rows from their chosen answers."""

    config: PairsConfig
    model: Any
    processor: Any
    debias: DebiasMasks

    def found(
        self, rows: Sequence[Preference]
    ) -> Iterator[tuple[Sequence[Preference], Sequence[Outcome]]]:
        """The rows in order, in parts that fit into the memory, with what was found for each."""
        size = self.config.batch if isinstance(self.config.batch, int) else 0
        if rows and not size:
            few = [prompt_of(row) for row in some(rows)]
            size = fitting(self.model, self.processor, few, reading_of(self.config))
        yield from halved(rows, size, self._annotated, "pairs.batch")

    def _annotated(self, rows: Sequence[Preference]) -> list[Outcome]:
        # Anchors are read for what is worth training on alone.
        filters = Filters(self.config, self.model, self.processor)
        left = [filters.left_out(row, self._answers(row)) for row in rows]
        passed = [row for row, reason in zip(rows, left, strict=True) if reason is None]
        found = iter(self._anchors(passed) if passed else [])
        return [reason or next(found) for reason in left]

    def _answers(self, row: Preference) -> Answers:
        is_parted = self.config.unit == "continuation"
        return Answers(
            chosen=row.chosen,
            rejected=row.rejected,
            chosen_score=row.chosen_score,
            rejected_score=row.rejected_score,
            prefix=given_beginning(row) if is_parted else "",
        )

    def _anchors(self, rows: Sequence[Preference]) -> list[Found]:
        prompts, model, processor = [prompt_of(row) for row in rows], self.model, self.processor
        chosen, K = [row.chosen for row in rows], self.config.anchor.anchor_tokens
        anchor_BN, layout = forced_anchors(model, processor, prompts, chosen, K, self.debias)
        counts, found = layout.counts_B.tolist(), []
        for i, prompt in enumerate(prompts):
            sizes = [image.size for image in prompt.images]
            own = (anchor_BN[i, : counts[i]], layout.of(i), sizes)
            found.append(Found(annotation=annotation(model, processor, *own)))
        return found


def reading_of(config: PairsConfig) -> Decoding:
    """What reading an anchor takes at most: a generation of the first K tokens."""
    K = config.anchor.anchor_tokens
    return Decoding(anchor_tokens=K, max_new_tokens=K)


@torch.no_grad()
def forced_anchors(
    model: nn.Module,
    processor: Any,
    prompts: Sequence[Prompt],
    answers: Sequence[str],
    anchor_tokens: int,
    debias: DebiasMasks | None,
) -> tuple[Tensor, Layout]:
    """The visual anchor of each answer, [B, N], and the image tokens of the prompts.

    Raises InputError for an answer with a special token, and a model that cannot be observed.
    """
    # 1. The first K tokens of each answer behind its prompt.
    first = [one[:anchor_tokens] for one in spoken(model, processor, answers)]
    batch, images = sequences(model, processor, prompts, first)
    is_answer_BS = batch.pop("completion_mask")
    layout = layout_of(model, batch)
    # 2. The attention of the positions that produce them. Nobody asks for the logits.
    rows_BK = response_rows(is_answer_BS)
    capture = RowCapture(rows_BK, layout.columns_BN, gradients=False)
    with observed(model, capture):
        model(**batch, use_cache=False, logits_to_keep=1)
    # 3. From there on it is the anchor of a generated answer.
    masks = debias.covering(layout, images) if debias is not None else None
    maps_BLN = mean_of_first(capture.stacked().transpose(1, 2), rows_BK >= 0)
    return anchors(maps_BLN, by_grid(layout), masks), layout
