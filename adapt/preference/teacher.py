"""The base's distributions at the answers of all plain rows, worked out once.

They are a property of model and rows, as reference log-probabilities are, and are kept beside them:
a resumed run, a second run and another arm of a comparison read them. They are worked out before
the first step, when the policy still is the base, by all workers together. A file of them is JSON
with the numbers as text (base64); it may be deleted at any time.
"""

import base64
import dataclasses
import hashlib
import json
from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor

from adapt.cluster import storage
from adapt.params import InputError
from adapt.preference.distillation import TOP, WHOLE, Distributions
from adapt.preference.reference import (
    LARGEST,
    ReferenceCache,
    circumstances,
    in_batches,
    once,
    tensors_of,
)
from adapt.preference.rehearsal import Rehearsal


@dataclasses.dataclass(frozen=True)
class Teacher:
    """The distributions of all rows, one after another; `counts` are their answer tokens."""

    counts: Sequence[int]
    every: Distributions

    def of(self, places: Sequence[int]) -> tuple[Distributions, list[int]]:
        """Those of some rows in this order, and how many tokens each of these has."""
        starts = [0, *accumulate(self.counts)]
        log_probs, ids = self.every.log_probs_NK, self.every.ids_NK
        parts = [slice(starts[place], starts[place + 1]) for place in places]
        several = [
            Distributions(log_probs[part], None if ids is None else ids[part]) for part in parts
        ]
        return Distributions.joined(several), [self.counts[place] for place in places]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Lesson:
    """What the distributions are worked out from.

    Args:
        rehearsal: the rows, and how a batch of them is made.
        batch_size: rows in a batch.
        logits: of the base at the answer tokens of a batch, row after row, [N, V].
        accelerator: ranks, device and precision.
        weights: how the base is held.
    """

    rehearsal: Rehearsal
    batch_size: int
    logits: Callable[[dict[str, Tensor]], Tensor]
    accelerator: Accelerator
    weights: str


def taught(lesson: Lesson, cache: ReferenceCache) -> Teacher:
    """From the cache, or worked out and put there."""
    count, accelerator = len(lesson.rehearsal.rows), lesson.accelerator

    def made() -> Teacher:
        asked = (count, lesson.batch_size, accelerator, "the base at plain rows")
        rows = in_batches(*asked, _distributions(lesson))
        return Teacher([len(row.log_probs_NK) for row in rows], Distributions.joined(rows))

    return once(
        accelerator,
        lambda: f"{cache.uri}/{_key(lesson, cache)}.json",
        lambda uri: _read(uri, count),
        made,
        _packed,
    )


def _distributions(lesson: Lesson) -> Callable[[range], list[Distributions]]:
    """Works out those of each row of a batch."""
    rehearsal = lesson.rehearsal

    def worked(places: range) -> list[Distributions]:
        batch = rehearsal.batch(places)
        counts = batch["completion_mask"].sum(1).tolist()
        whole = Distributions.of(lesson.logits(batch)).to(torch.device("cpu"))
        return [Teacher(counts, whole).of([row])[0] for row in range(len(counts))]

    return worked


def _key(lesson: Lesson, cache: ReferenceCache) -> str:
    """sha256 over model, rows and the way of computing."""
    total, rehearsal = hashlib.sha256(), lesson.rehearsal
    how = circumstances(lesson, cache) | {"kept": [WHOLE, TOP]}
    total.update(json.dumps(how, sort_keys=True).encode())
    for row in rehearsal.rows:
        history = [[turn.question, turn.answer] for turn in row.history]
        total.update(json.dumps([row.question, row.answer, *history]).encode())
        for content in row.images:
            total.update(hashlib.sha256(content).digest())
    # The batch of the first row, where another way to pixels and tokens shows.
    for content in tensors_of(rehearsal.batch([0])):
        total.update(content)
    return total.hexdigest()


# ---- the file ------------------------------------------------------------------------------------


def _packed(teacher: Teacher) -> dict[str, Any]:
    log_probs, ids = teacher.every.log_probs_NK, teacher.every.ids_NK
    return {
        "counts": [*teacher.counts],
        "log_probs": _text(log_probs.numpy().astype("<f4")),
        "ids": None if ids is None else _text(ids.numpy().astype("<i4")),
    }


def _read(uri: str, count: int) -> Teacher | None:
    """What a file has of `count` rows; None where there is none, or something else."""
    try:
        content = storage.read_json(uri, LARGEST)
        counts = [int(number) for number in content["counts"]]
        log_probs = _numbers(content["log_probs"], "<f4", sum(counts))
        ids = content["ids"] and _numbers(content["ids"], "<i4", sum(counts)).long()
    except (FileNotFoundError, InputError, KeyError, TypeError, ValueError):
        return None
    is_whole = len(counts) == count and bool(log_probs.isfinite().all())
    return Teacher(counts, Distributions(log_probs, ids)) if is_whole else None


def _text(numbers: "np.ndarray[Any, Any]") -> str:
    return base64.b64encode(numbers.tobytes()).decode()


def _numbers(text: str, kind: str, tokens: int) -> Tensor:
    found = np.frombuffer(base64.b64decode(text, validate=True), kind).reshape(tokens, -1)
    return torch.from_numpy(found.copy())
