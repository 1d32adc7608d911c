"""Reference log-probabilities, computed once: with the reference fixed, they are a property of
model and rows.

TRL computes them at every step (and refuses its own precomputation for images). Here they are
computed before the first step by TRL's own function, in batches of the size of training and by all
workers together, and kept under a hash of everything they depend on: a resumed run, a second run
and another arm of a comparison read them. They become columns of the dataset, and the reference
model is let go. With LoRA the reference is the model without its adapter.

A file holds one set of images (plain or guided) of one pair file, a few bytes per row: JSON, on any
storage that `adapt/storage.py` reaches, whole or absent. Any of them may be deleted at any time.
"""

import dataclasses
import hashlib
import json
import math
from collections.abc import Iterator
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import torch

from adapt.cluster import storage
from adapt.progress import track

if TYPE_CHECKING:
    from adapt.preference.trainer import AdaptTrainer

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


def attach(trainer: "AdaptTrainer", cache: ReferenceCache, guided: bool) -> None:
    """Add the columns of `REFERENCE` to the trainer's dataset, and the guided ones if asked for.

    Raises FloatingPointError with the rows' ids where the reference has no finite log-probability.
    """
    from adapt.preference.collate import GUIDED, REFERENCE

    columns: dict[str, list[float]] = {}
    for is_guided in (False, True) if guided else (False,):
        values = _values(trainer, cache, is_guided)
        prefix = GUIDED if is_guided else ""
        columns |= {prefix + name: [row[i] for row in values] for i, name in enumerate(REFERENCE)}
    for name, column in columns.items():
        trainer.train_dataset = trainer.train_dataset.add_column(name, column)
    if trainer.ref_model is not None:
        trainer.accelerator._models.remove(trainer.ref_model)  # or its memory stays taken
        trainer.ref_model = None
    trainer.precompute_ref_logps = True  # TRL's name for: take them from the batch


def _values(trainer: "AdaptTrainer", cache: ReferenceCache, guided: bool) -> Values:
    """From the cache, or computed and put there; rank 0 looks, so that all ranks do the same."""
    from accelerate.utils import broadcast_object_list

    is_first = trainer.is_world_process_zero()
    uri = f"{cache.uri}/{_key(trainer, cache, guided)}.json" if is_first else ""
    found: list[Values | None] = [_read(uri) if is_first else None]
    broadcast_object_list(found)
    if found[0] is not None:
        return found[0]
    values = _compute(trainer, guided)
    if is_first:
        storage.write_json(uri, {"log_probs": values})
    return values


def _read(uri: str) -> Values | None:
    try:
        return storage.read_json(uri)["log_probs"]
    except FileNotFoundError:
        return None


def _compute(trainer: "AdaptTrainer", guided: bool) -> Values:
    """Every rank takes each so many batches; the batches themselves do not depend on the number of
    ranks.
    """
    from accelerate.utils import gather_object

    from adapt.preference.collate import part

    rows, size, args = trainer.train_dataset, trainer.args.per_device_train_batch_size, trainer.args
    model = trainer.model if trainer.ref_model is None else trainer.ref_model
    starts = range(0, len(rows), size)
    mine: Any = starts[args.process_index :: args.world_size]
    if trainer.is_world_process_zero():
        mine = track(mine, f"reference, {'guided' if guided else 'plain'} images")
    found: dict[int, Values] = {}
    for start in mine:
        batch = trainer.data_collator([*rows.select(range(start, min(start + size, len(rows))))])
        inputs = trainer._prepare_inputs(part(batch, guided))
        answering = model if guided else trainer.for_pairs(model, inputs)
        log_probs = trainer.compute_ref_log_probs(answering, inputs)
        found[start] = torch.stack(log_probs, 1).float().tolist()
    merged = {start: values for one in gather_object([found]) for start, values in one.items()}
    values = [row for start in starts for row in merged[start]]
    bad = [
        identity
        for identity, row in zip(rows["id"], values, strict=True)
        if not all(map(math.isfinite, row))
    ]
    if bad:
        raise FloatingPointError(
            f"the base model gives no finite log-probability to the answers of {', '.join(bad)}"
        )
    return values


def _key(trainer: "AdaptTrainer", cache: ReferenceCache, guided: bool) -> str:
    """sha256 over model, rows, images and the way of computing; the same inputs always give the
    same bytes.
    """
    total, device = hashlib.sha256(), trainer.args.device.type
    how = {
        "base": cache.base,
        "guided": guided,
        "batch": trainer.args.per_device_train_batch_size,
        "precision": trainer.accelerator.mixed_precision,
        "device": device if device != "cpu" else f"cpu with {torch.get_num_threads()} threads",
        "versions": {name: version(name) for name in ("torch", "transformers", "trl")},
    }
    total.update(json.dumps(how, sort_keys=True).encode())
    for content in _contents(trainer, guided):
        total.update(hashlib.sha256(content).digest())
    return total.hexdigest()


def _contents(trainer: "AdaptTrainer", guided: bool) -> Iterator[bytes]:
    """Every row, and what the collator makes of the first one: a change in the way to pixels and
    tokens shows there.
    """
    from datasets import Image

    from adapt.preference.collate import REFERENCE, part

    for row in trainer.train_dataset.cast_column("image", Image(decode=False)):
        yield row["image"]["bytes"]
        names = ("prompt", "chosen", "rejected", *(("id", "anchor", "grid") if guided else ()))
        yield json.dumps([row[name] for name in names]).encode()
    batch = part(trainer.data_collator([trainer.train_dataset[0]]), guided)
    for name in sorted(batch.keys() - set(REFERENCE)):
        yield name.encode() + batch[name].contiguous().numpy().tobytes()
