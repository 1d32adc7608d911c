"""The plain rows of a training step: which ones, and the batch that they make.

A step takes `train.keep_rows` of them beside its pairs. Which ones is a matter of seed and step
alone: the rows pass by in a random order, and in another one each time that they begin anew. So a
resumed run sees what an uninterrupted one would have seen, and any number of workers sees the same.

Shapes: A rows of a batch, S sequence.
"""

import dataclasses
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from torch import Tensor

from adapt.data.schema import Example, open_images
from adapt.models.continued import continued, divided
from adapt.models.prompts import answer_tokens, encode
from adapt.preference.settings import KeepForm


@dataclasses.dataclass(frozen=True, kw_only=True)
class PlainCollator:
    """A batch of rows with one answer each, padded on the right.

    What the model takes of prompts, answers and pictures, and `completion_mask`, which is 1 at the
    tokens of answers and at the one that ends each.

    Args:
        processor: of the model.
        ends: the tokens that end an answer, see `adapt.models.prompts.end_tokens`.
    """

    processor: Any
    ends: tuple[int, ...]

    def __call__(self, rows: Sequence[Example]) -> dict[str, Tensor]:
        """The batch of these rows, [A, S] each of its per-token inputs."""
        pictures, questions = [open_images(row) for row in rows], [row.question for row in rows]
        histories = [row.history for row in rows]
        prompts = divided(encode(self.processor, pictures, questions, "right", histories))
        answers = answer_tokens(self.processor, [row.answer for row in rows], self.ends)
        pad = self.processor.tokenizer.pad_token_id
        return continued(prompts.tokens, answers, pad) | prompts.pictures


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rehearsal:
    """Which of the rows a step takes, and a part's batch of them.

    Args:
        rows: the plain rows.
        collate: makes a batch of some of them.
        count: rows of a step, over all its parts.
        seed: of the order.
        form: what is asked of the policy: the rows' answers, or what the base said at their tokens.
    """

    rows: Sequence[Example]
    collate: PlainCollator
    count: int
    seed: int
    form: KeepForm = "sft"

    def places(self, step: int, part: int, parts: int) -> list[int]:
        """The rows that one of `parts` takes of a step, counted from 0.

        All parts have equally many, so that the mean of their means is that of the step.
        """
        assert self.count % parts == 0, "the settings see to it"
        share, total = self.count // parts, len(self.rows)
        first = step * self.count + part * share
        numbers = (divmod(number, total) for number in range(first, first + share))
        return [int(_order(total, self.seed, epoch)[place]) for epoch, place in numbers]

    def batch(self, places: Sequence[int]) -> dict[str, Tensor]:
        """The batch of these rows."""
        return self.collate([self.rows[place] for place in places])

    def ids(self, places: Sequence[int]) -> list[str]:
        """The ids of these rows."""
        return [self.rows[place].id for place in places]


@lru_cache(maxsize=2)
def _order(total: int, seed: int, epoch: int) -> np.ndarray[Any, Any]:
    """In which order the rows pass by for the `epoch`-th time."""
    return np.random.default_rng([seed, epoch]).permutation(total)
