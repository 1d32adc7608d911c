"""Reference log-probabilities, computed once: they are a property of model and rows.

TRL computes them at every step (and refuses its own precomputation for images), with a second model
in memory. Here they are computed before the first step, when the policy still is the reference, by
TRL's own function, in batches of the size of training and by all workers together, and kept under a
hash of everything they depend on: a resumed run, a second run and another arm of a comparison read
them. The trainer makes them columns of its dataset.

A file holds one set of images (plain or guided) of one pair file, a few bytes per row: JSON, on any
storage that `adapt/cluster/storage.py` reaches, whole or absent. Any of them may be deleted at any
time.
"""

import dataclasses
import hashlib
import json
import math
from collections.abc import Callable, Iterator
from importlib.metadata import version
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list, gather_object
from datasets import Dataset
from torch import Tensor

from adapt.cluster import storage
from adapt.params import InputError
from adapt.preference.collate import GUIDED, REFERENCE, part
from adapt.preference.dataset import ids_of
from adapt.progress import track

LARGEST = 2**30  # bytes of a file
Values = list[list[float]]  # per row: chosen, rejected, in nats


@dataclasses.dataclass(frozen=True, kw_only=True)
class ReferenceCache:
    """Where the values are kept, and of which model.

    Args:
        uri: folder, or a URI of shared storage.
        base: digest of the base model's folder: weights, configuration and processor.
    """

    uri: str
    base: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Source:
    """What the values are computed from.

    Args:
        rows: the pairs. collate: makes a batch of some of them, on the CPU.
        batch_size: pairs in a batch, as in training.
        log_probs: of the chosen and of the rejected answers of a collated batch, [B] each, under
            its guided images or its plain ones.
        accelerator: ranks, device and precision.
        weights: how the model holds them; the same base in half precision answers differently.
    """

    rows: Dataset
    collate: Callable[[list[dict[str, Any]]], dict[str, Any]]
    batch_size: int
    log_probs: Callable[[dict[str, Any], bool], tuple[Tensor, Tensor]]
    accelerator: Accelerator
    weights: str


def columns(source: Source, cache: ReferenceCache, guided: bool) -> dict[str, list[float]]:
    """The columns of `REFERENCE`, a value per row in nats, and the guided ones if asked for.

    Raises FloatingPointError with the rows' ids where the reference has no finite log-probability.
    """
    named: dict[str, list[float]] = {}
    for is_guided in (False, True) if guided else (False,):
        values, prefix = _values(source, cache, is_guided), GUIDED if is_guided else ""
        named |= {prefix + name: [row[i] for row in values] for i, name in enumerate(REFERENCE)}
    return named


def _values(source: Source, cache: ReferenceCache, guided: bool) -> Values:
    """From the cache, or computed and put there."""
    # Rank 0 looks for all: ranks that found different things would wait for each other for ever.
    is_first = source.accelerator.is_main_process
    uri = f"{cache.uri}/{_key(source, cache, guided)}.json" if is_first else ""
    cached: list[Values | None] = [_read(uri, len(source.rows)) if is_first else None]
    broadcast_object_list(cached)
    if cached[0] is not None:
        return cached[0]
    values = _compute(source, guided)
    if is_first:
        storage.write_json(uri, {"log_probs": values})
    return values


def _read(uri: str, count: int) -> Values | None:
    """The values of `count` rows; None where there are none, or something else."""
    try:
        values = storage.read_json(uri, LARGEST).get("log_probs")
    except (FileNotFoundError, InputError):
        return None
    rows = values if isinstance(values, list) and len(values) == count else [None]
    pairs = (isinstance(row, list) and [*map(type, row)] == [float, float] for row in rows)
    return values if all(pairs) else None


def _compute(source: Source, guided: bool) -> Values:
    rows, size, accelerator = source.rows, source.batch_size, source.accelerator
    # 1. The batches do not depend on the number of ranks, so that the values do not either: how
    #    rows are padded shows in the last digits.
    starts = range(0, len(rows), size)
    # 2. Each rank takes every n-th of them; the first one, which shows progress, has the most.
    mine: Any = starts[accelerator.process_index :: accelerator.num_processes]
    if accelerator.is_main_process:
        mine = track(mine, f"reference, {'guided' if guided else 'plain'} images")
    by_start: dict[int, Values] = {}
    for start in mine:
        batch = source.collate([*rows.select(range(start, min(start + size, len(rows))))])
        by_start[start] = torch.stack(source.log_probs(batch, guided), 1).float().tolist()
    # 3. All ranks get the values of all, in the order of the rows,
    gathered = {k: v for one in gather_object([by_start]) for k, v in one.items()}
    values = [row for start in starts for row in gathered[start]]
    # 4. and so all of them stop where one value cannot be used.
    pairs = zip(ids_of(rows), values, strict=True)
    bad = [identity for identity, row in pairs if not all(map(math.isfinite, row))]
    if bad:
        problem = "the base model gives no finite log-probability to the answers of"
        raise FloatingPointError(f"{problem} {', '.join(bad)}")
    return values


def _key(source: Source, cache: ReferenceCache, guided: bool) -> str:
    """sha256 over model, rows, images and the way of computing."""
    total, device = hashlib.sha256(), source.accelerator.device.type
    how = {
        "base": cache.base,
        "guided": guided,
        "batch": source.batch_size,
        "precision": source.accelerator.mixed_precision,
        "weights": source.weights,
        "device": device if device != "cpu" else f"cpu with {torch.get_num_threads()} threads",
        "versions": {name: version(name) for name in ("torch", "transformers", "trl")},
    }
    total.update(json.dumps(how, sort_keys=True).encode())
    for content in _contents(source, guided):
        total.update(hashlib.sha256(content).digest())
    return total.hexdigest()


def _contents(source: Source, guided: bool) -> Iterator[bytes]:
    """Every row, and the batch of the first, where another way to pixels and tokens shows."""
    for row in source.rows:
        history = [[turn.question, turn.answer] for turn in row.get("history", ())]
        texts = [row[name] for name in ("question", "chosen", "rejected")]
        yield json.dumps([*texts, *history]).encode()
        yield from row["images"]
        yield from row.get("rejected_images", ())
        if guided:
            yield row["id"].encode()
            yield from row["support"]
    batch = part(source.collate([source.rows[0]]), guided)
    for name in sorted(batch):
        yield name.encode() + batch[name].contiguous().numpy().tobytes()
