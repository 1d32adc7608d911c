"""The ways to train a model side by side: what each takes of a card, and on which cards it fits.

Full training in fp32 and under bf16 by AdamW, with its moments on the card and in main memory, in
fp32 by Adafactor, adapters over a base in 16 bits and in 4; each by so many workers, which hold all
of the model or a share of it. Beside them what `pairs` and `answer` take. All else is as
params.yaml has it; nothing is run, and no weights are read.
"""

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from adapt.inspect import memory, training
from adapt.inspect.estimate import Estimate, Subject
from adapt.inspect.machine import Machine, imagined
from adapt.inspect.plan import Plans, estimates
from adapt.inspect.probes import report
from adapt.inspect.train_plan import (
    Changes,
    adapted,
    first_that_fits,
    named,
    pass_of,
    quartered,
    smaller_passes,
)
from adapt.preference.settings import Config, Shard

CARDS = (24.0, 48.0, 80.0)  # GiB
WORKERS = (1, 2, 4, 8)
SHARDS: tuple[Shard, ...] = ("none", "fsdp")
FACTORED = "full, fp32, adafactor"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Asked:
    """What a table is to have: cards by their GiB, numbers of workers, and how these share."""

    cards: Sequence[float] = CARDS
    workers: Sequence[int] = WORKERS
    shards: Sequence[Shard] = SHARDS


def planned(source: str, picture: Path | None, plans: Plans, asked: Asked) -> dict[str, Any]:
    """What `--plan --json` prints of a folder or a hub id; without `plan` where it is no model that
    can be aligned, and then why.

    Raises InputError as `report` and `estimates` do.
    """
    facts, subject = report(source, picture, torch.device("cpu"), tried=False)
    return facts if subject is None else facts | {"plan": table(subject, plans, asked)}


def table(subject: Subject, plans: Plans, asked: Asked) -> dict[str, Any]:
    """What `--plan` tells, as `--json` prints it; bytes, unless a key says otherwise.

    `rows`: the ways to train; `fits` of a row has for each card the settings under which it fits,
    the fewest first: none where it does as it is, null where nothing helps. `as_set`: the same for
    the section `train` as it stands, of `workers`, any change allowed; `auto`: which keys of it
    need not be changed, because they are `auto`. `decoding`: `pairs` and `answer`.
    """
    cards = [imagined(size) for size in asked.cards]
    answer, ways = plans.answer.max_new_tokens, [*_ways(plans.train, asked)]
    rows = [_row(subject, name, config, answer, asked, cards) for name, config in ways]
    config = plans.train
    return {
        "cards": [f"{size:g}" for size in asked.cards],
        "weights": sum(subject.sizes.parameters.values()),
        "prompt_tokens": subject.sizes.prompt,
        "answer_tokens": answer,
        "batch_pairs": config.batch_pairs,
        "keep_rows": config.keep_rows if config.w_keep else 0,
        "rank": config.lora.rank or adapted(config)["lora"].rank,
        "full_tower": _full(config).tower,
        "workers": config.workers,
        "auto": [f"train.{key}" for key in config.left_open],
        "left_out": [n for n in asked.workers if not any(n == c.workers for _, c in ways)],
        "rows": rows,
        **_by_card(subject, plans, asked, cards),
    }


def _ways(config: Config, asked: Asked) -> Iterator[tuple[str, Config]]:
    """Names and settings of all rows, by kind, then by sharing, then by workers."""
    full, lora = _full(config), config.model_copy(update=adapted(config))
    adamw, plain, away = {"optimizer": "adamw"}, {"offload": "none"}, {"offload": "optimizer"}
    fp32, bf16 = {"precision": "fp32"}, {"precision": "bf16"}
    kinds = {
        "full, fp32": full.model_copy(update=adamw | plain | fp32),
        "full, bf16": full.model_copy(update=adamw | plain | bf16),
        "full, fp32, offload": full.model_copy(update=adamw | away | fp32),
        "full, bf16, offload": full.model_copy(update=adamw | away | bf16),
        FACTORED: full.model_copy(update={"optimizer": "adafactor"} | plain | fp32),
        "LoRA": _in_16_bits(lora).model_copy(update=bf16),
        "LoRA, 4 bits": config.model_copy(update=quartered(config) | bf16),
    }
    for name, kind in kinds.items():
        for shard in asked.shards:
            for workers in asked.workers:
                # One worker has nobody to share with; a base in 4 bits and what Adafactor keeps are
                # not divided.
                is_whole = kind.lora.bits == 4 or name == FACTORED
                if shard == "fsdp" and (workers == 1 or is_whole):
                    continue
                own = {"workers": workers, "shard": shard} | (adamw if shard == "fsdp" else {})
                way = _divided(kind.model_copy(update=own))
                if way is not None:
                    yield name, way


def _full(config: Config) -> Config:
    """Without adapters; the tower as `auto` has it where it had some."""
    if config.lora.rank == 0:
        return config
    none = config.lora.model_copy(update={"rank": 0, "bits": 16})
    tower = "full" if config.tower == "lora" else config.tower
    return config.model_copy(update={"lora": none, "tower": tower})


def _in_16_bits(config: Config) -> Config:
    return config.model_copy(update={"lora": config.lora.model_copy(update={"bits": 16})})


def _divided(config: Config) -> Config | None:
    """The same in as few passes as its rows divide into; None where these do not divide at all."""
    for n in range(config.passes, config.batch_pairs + 1):
        one = config.model_copy(update={"accumulation": n})
        rows = (one.batch_pairs, one.keep_rows if one.w_keep else 0)
        if all(count % one.parts == 0 for count in rows):
            return one
    return None


def _row(
    subject: Subject,
    name: str,
    config: Config,
    answer: int,
    asked: Asked,
    cards: Sequence[Machine],
) -> dict[str, Any]:
    """One way to train, and on which of the cards it fits."""
    sizes, plan = subject.sizes, pass_of(subject, config, answer, cards[0])
    parts, before = training.step(sizes, plan), training.reference(sizes, plan)
    fits = {}
    for size, card in zip(asked.cards, cards, strict=True):
        change = first_that_fits(subject, config, answer, card, smaller_passes(config))
        fits[f"{size:g}"] = None if change is None else named(change)
    return {
        "way": name,
        "shard": config.shard,
        "workers": config.workers,
        "pairs": config.pass_pairs,
        "parts": parts,
        "reference": before,
        "peak": max(memory.total(parts), before),
        "checkpoint": training.checkpoint(sizes, plan),
        "main_memory": training.main_memory(sizes, plan, subject.stored.itemsize),
        "fits": fits,
    }


def _by_card(
    subject: Subject, plans: Plans, asked: Asked, cards: Sequence[Machine]
) -> dict[str, Any]:
    """What depends on the card beyond whether it fits: advice, and how many answers at once."""
    as_set: dict[str, Changes | None] = {}
    decoding = []
    for size, card in zip(asked.cards, cards, strict=True):
        found, label = estimates(subject, plans, card), f"{size:g}"
        train = found.pop("train")
        as_set[label] = {**train.advice} if train.fits or train.advice else None
        decoding += [_stage(name, label, one) for name, one in found.items()]
    return {"as_set": as_set, "decoding": decoding}


def _stage(name: str, card: str, one: Estimate) -> dict[str, Any]:
    facts = {"stage": name, "card": card, "what": one.what, "parts": {**one.parts}}
    return facts | {"peak": one.total, "fits": one.fits, "advice": {**one.advice}}
