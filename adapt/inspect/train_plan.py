"""A training run of a params.yaml in numbers: one pass of a process, and what would make it fit."""

import dataclasses
import math
from collections.abc import Iterator, Mapping
from typing import Any

import torch

from adapt.attention.settings import includes
from adapt.inspect import memory, training
from adapt.inspect.estimate import Estimate, Subject
from adapt.inspect.machine import Machine
from adapt.models.roles import ROLES, Role, linear_layers
from adapt.preference.adapters import adapted_layers
from adapt.preference.losses import Weights
from adapt.preference.settings import Config

NF4 = 0.516  # bytes of a weight: 4 bits, and its share of the twice quantised scales
RANK = 16  # of adapters, where the weights themselves do not fit


def train_estimate(subject: Subject, config: Config, answer: int, machine: Machine) -> Estimate:
    """Of `train`, with answers of `answer` tokens, and the mildest change that makes it fit."""
    limit = machine.limit(config.processes)

    def of(changed: Config) -> dict[str, int]:
        plan = pass_of(subject, changed, answer, machine)
        return training.step(subject.sizes, plan)

    estimate = Estimate(what=_what(config, answer), parts=of(config), limit=limit, advice={})
    for changes in () if estimate.fits else _changes(config):
        if memory.total(of(config.model_copy(update=changes))) <= limit:
            return dataclasses.replace(estimate, advice=_named(changes))
    return estimate


def _what(config: Config, answer: int) -> str:
    way = f"LoRA of rank {config.lora.rank}" if config.lora.rank else "full training"
    return f"{way}, {config.pass_pairs} pairs of answers of {answer} tokens a pass"


def _changes(config: Config) -> Iterator[dict[str, Any]]:
    """Settings to try, the mildest first: smaller passes, then checkpointing, then LoRA."""
    pairs = config.batch_pairs // config.processes
    passes = [n for n in range(config.accumulation, pairs + 1) if pairs % n == 0]
    adapters = {"lora": config.lora.model_copy(update={"rank": RANK})}
    kinds: list[dict[str, Any]] = [{}, {"gradient_checkpointing": True}]
    if config.lora.rank == 0 and config.tower != "full":
        kinds += [kind | adapters for kind in kinds]
    for kind in kinds:
        for n in passes:
            yield kind | ({"accumulation": n} if n != config.accumulation else {})


def _named(changes: Mapping[str, Any]) -> dict[str, Any]:
    named = {f"train.{key}": value for key, value in changes.items() if key != "lora"}
    return named | ({"train.lora.rank": RANK} if "lora" in changes else {})


def pass_of(subject: Subject, config: Config, answer: int, machine: Machine) -> training.Pass:
    """One pass of one process in numbers; answers as long as they may be."""
    sizes, roles = subject.sizes, subject.sizes.parameters
    is_lora, is_bf16 = config.lora.rank > 0, _is_bf16(config, machine)
    adapted = adapted_layers(subject.model, config.tower, config.lora.targets) if is_lora else []
    adapters = config.lora.rank * sum(sum(sizes.linears[name]) for name in adapted)
    free = roles["projector"] + roles["decoder"]
    free += roles["tower"] if config.tower == "full" else 0
    layers = [n for n in range(len(sizes.windows)) if includes(config.attn_layers, n)]
    passes = Weights.of(config).passes()
    return training.Pass(
        pairs=config.pass_pairs,
        answer=answer,
        trained=adapters if is_lora else free,
        adapters=adapters,
        ranks=config.lora.rank * len(adapted),
        layers=len(layers) if config.w_attn > 0 else 0,
        stored=_stored(subject, config, is_bf16),
        each=2 if is_bf16 else memory.FP32,
        passes=config.accumulation * len(passes),
        processes=config.processes,
        checkpointing=config.gradient_checkpointing,
        shares=config.w_dpo > 0 and subject.shares(sizes.prompt + answer),
        guided="guided" in passes,
        trains_head=not is_lora,
        trains_tower=config.tower != "frozen",
    )


def _is_bf16(config: Config, machine: Machine) -> bool:
    """Whether passes compute in bf16, as adapt/preference/precision.py decides it."""
    if config.precision == "auto":
        return machine.generation == torch.bfloat16
    return config.precision == "bf16"


def _stored(subject: Subject, config: Config, is_bf16: bool) -> float:
    """Bytes of a weight of the base, on average: adapt/preference/precision.py, adapters.py."""
    if config.lora.rank == 0 or not is_bf16:
        return memory.FP32
    if config.lora.bits == 16:
        return min(subject.stored.itemsize, memory.FP32)
    sizes = subject.sizes
    quantised = sum(
        math.prod(sizes.linears[name]) for name in adapted_layers(subject.model, "frozen", "all")
    )
    everything = sum(sizes.parameters.values())
    return (NF4 * quantised + 2 * (everything - quantised)) / everything


def states(subject: Subject, config: Config) -> dict[Role, str]:
    """What training does with each part of the model, in words."""
    if config.lora.rank == 0:
        return {role: _full(role, config) for role in ROLES}
    names = adapted_layers(subject.model, config.tower, config.lora.targets)
    found: dict[Role, str] = dict.fromkeys(ROLES, "frozen")
    for role in ROLES:
        mine = set(names) & set(linear_layers(subject.model, role))
        numbers = config.lora.rank * sum(sum(subject.sizes.linears[name]) for name in mine)
        if mine:
            found[role] = f"adapters of rank {config.lora.rank}: {numbers:,} weights"
    return found


def _full(role: Role, config: Config) -> str:
    return "trained" if role != "tower" or config.tower == "full" else "frozen"
