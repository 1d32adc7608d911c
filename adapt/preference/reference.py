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
from collections.abc import Callable, Iterator, Mapping
from importlib.metadata import version
from typing import Any, TypeVar

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list, gather_object
from datasets import Dataset
from torch import Tensor

from adapt.cluster import storage
from adapt.params import InputError
from adapt.preference.collate import GUIDED, REFERENCE, part
from adapt.preference.dataset import ids_of
from adapt.preference.settings import VagForm
from adapt.progress import track

T = TypeVar("T")
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
        log_probs: of both halves of a collated batch, [B] each: of its chosen and its rejected
            answers on plain images, or of the two that guidance compares.
        accelerator: ranks, device and precision.
        weights: how the model holds them; the same base in half precision answers differently.
        form: which answers and pictures the two halves of guided rows are.
        span_weight: of tokens inside the spans that decide, in these log-probabilities.
    """

    rows: Dataset
    collate: Callable[[list[dict[str, Any]]], dict[str, Any]]
    batch_size: int
    log_probs: Callable[[dict[str, Any], bool], tuple[Tensor, Tensor]]
    accelerator: Accelerator
    weights: str
    form: VagForm
    span_weight: float = 1.0


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
    return once(
        source.accelerator,
        lambda: f"{cache.uri}/{_key(source, cache, guided)}.json",
        lambda uri: _read(uri, len(source.rows)),
        lambda: _compute(source, guided),
        lambda values: {"log_probs": values},
    )


def once(
    accelerator: Accelerator,
    place: Callable[[], str],
    read: Callable[[str], T | None],
    made: Callable[[], T],
    packed: Callable[[T], dict[str, Any]],
) -> T:
    """What a JSON file of the cache has, at `place`; else `made` by all ranks, and put there.

    `read` gives None where the file is missing or is something else.
    """
    # Rank 0 looks for all: ranks that found different things would wait for each other for ever.
    is_first = accelerator.is_main_process
    uri = place() if is_first else ""
    found: list[T | None] = [read(uri) if is_first else None]
    broadcast_object_list(found)
    if found[0] is not None:
        return found[0]
    values = made()
    if is_first:
        storage.write_json(uri, packed(values))
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
    rows, label = source.rows, f"reference, {'guided' if guided else 'plain'} images"

    def worked(places: range) -> Values:
        batch = source.collate([*rows.select(places)])
        found: Values = torch.stack(source.log_probs(batch, guided), 1).float().tolist()
        return found

    values = in_batches(len(rows), source.batch_size, source.accelerator, label, worked)
    # All ranks have the same values, and so all of them stop where one cannot be used.
    pairs = zip(ids_of(rows), values, strict=True)
    bad = [identity for identity, row in pairs if not all(map(math.isfinite, row))]
    if bad:
        problem = "the base model gives no finite log-probability to the answers of"
        raise FloatingPointError(f"{problem} {', '.join(bad)}")
    return values


def in_batches(
    count: int, size: int, accelerator: Accelerator, label: str, worked: Callable[[range], list[T]]
) -> list[T]:
    """What `worked` makes of `count` rows, `size` at a time; all ranks share the work and the end.

    The first rank shows progress, called `label`.
    """
    # 1. The batches do not depend on the number of ranks, so that the values do not either: how
    #    rows are padded shows in the last digits.
    starts = range(0, count, size)
    # 2. Each rank takes every n-th of them, and all take equally many: those of a divided model
    #    exchange weights in every pass. Who has no more takes the first one again.
    ranks = accelerator.num_processes
    mine: Any = [*starts[accelerator.process_index :: ranks]]
    mine += [*starts[:1]] * (-(-len(starts) // ranks) - len(mine))
    if accelerator.is_main_process:
        mine = track(mine, label)
    by_start = {start: worked(range(start, min(start + size, count))) for start in mine}
    # 3. All ranks get the values of all, in the order of the rows.
    gathered = {k: v for one in gather_object([by_start]) for k, v in one.items()}
    return [row for start in starts for row in gathered[start]]


def circumstances(source: Any, cache: ReferenceCache) -> dict[str, Any]:
    """What values depend on besides rows: the model, how it is held, and what computes.

    `source` has a batch size, an accelerator and weights, as `Source` has.
    """
    device = source.accelerator.device.type
    return {
        "base": cache.base,
        "batch": source.batch_size,
        "precision": source.accelerator.mixed_precision,
        "weights": source.weights,
        "device": device if device != "cpu" else f"cpu with {torch.get_num_threads()} threads",
        "versions": {name: version(name) for name in ("torch", "transformers", "trl")},
    }


def _key(source: Source, cache: ReferenceCache, guided: bool) -> str:
    """sha256 over model, rows, images and the way of computing."""
    total, how = hashlib.sha256(), circumstances(source, cache)
    # The paper's form was the only one when the first of these files were written.
    how["guided"] = source.form if guided and source.form != "paper" else guided
    if source.span_weight != 1:
        how["span_weight"] = source.span_weight
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
        if prefix := row.get("prefix", ""):
            yield json.dumps({"prefix": prefix}).encode()
        if source.span_weight != 1:
            spans = [row.get(name, ()) for name in ("chosen_spans", "rejected_spans")]
            yield json.dumps(spans).encode()
        yield from row["images"]
        yield from row.get("rejected_images", ())
        if guided:
            yield row["id"].encode()
            yield from row["support"] if source.form == "paper" else ()
    yield from tensors_of(part(source.collate([source.rows[0]]), guided))


def tensors_of(batch: Mapping[str, Tensor]) -> Iterator[bytes]:
    """The contents of a batch, by name."""
    for name in sorted(batch):
        yield name.encode() + batch[name].contiguous().numpy().tobytes()
