"""A training run of a params.yaml in numbers: one pass of a process, and what would make it fit."""

import dataclasses
import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch

from adapt.attention.settings import includes
from adapt.inspect import memory, training
from adapt.inspect.estimate import Estimate, Subject
from adapt.inspect.machine import Machine
from adapt.inspect.passes import Pass
from adapt.inspect.sizes import Sizes
from adapt.models.roles import ROLES, Role, linear_layers
from adapt.preference.losses import Weights
from adapt.preference.settings import Config, Optimizer

NF4 = 0.516  # bytes of a weight: 4 bits, and its share of the twice quantised scales
RANK = 16  # of adapters, where the weights themselves do not fit
Changes = dict[str, Any]  # settings of section `train`, by name


def train_estimate(subject: Subject, config: Config, answer: int, machine: Machine) -> Estimate:
    """Of `train`, with answers of `answer` tokens, and the mildest change that makes it fit."""
    plan = pass_of(subject, config, answer, machine)
    estimate = Estimate(
        what=_what(config, answer),
        parts=training.step(subject.sizes, plan),
        limit=machine.limit(config.processes),
        advice={},
    )
    if estimate.fits:
        return estimate
    change = first_that_fits(subject, config, answer, machine, _changes(config, machine))
    if change is None:
        return estimate
    advice = named({key: to for key, to in change.items() if getattr(config, key) != to})
    auto = [key for key in advice if key.removeprefix("train.") in config.left_open]
    return dataclasses.replace(estimate, advice=advice, auto=auto if machine.is_gpu else [])


def first_that_fits(
    subject: Subject, config: Config, answer: int, machine: Machine, several: Iterable[Changes]
) -> Changes | None:
    """The first of these changes with which a process has memory enough; None where none has."""
    for changes in several:
        changed = config.model_copy(update=changes)
        if peak(subject, changed, answer, machine) <= machine.limit(changed.processes):
            return changes
    return None


def peak(subject: Subject, config: Config, answer: int, machine: Machine) -> int:
    """Bytes of one process: of a step, or of the pass before the first one where that is more."""
    plan = pass_of(subject, config, answer, machine)
    step = memory.total(training.step(subject.sizes, plan))
    return max(step, training.reference(subject.sizes, plan))


def _what(config: Config, answer: int) -> str:
    way = f"LoRA of rank {config.lora.rank}" if config.lora.rank else "full training"
    return f"{way}, {config.pass_pairs} pairs of answers of {answer} tokens a pass"


def _changes(config: Config, machine: Machine) -> Iterator[Changes]:
    """Settings to try, the mildest first.

    The same model divided among the workers that there are; with AdamW's moments in main memory,
    whole and divided; whole, by an optimizer that keeps less; then LoRA, which trains another one,
    then that divided, then its base in 4 bits; of each smaller passes, then checkpointing.
    """
    kinds: list[Changes] = [{}]
    if config.processes > 1 and config.shard == "none" and config.lora.bits == 16:
        # Of the optimizers it divides AdamW alone.
        kinds.append({"shard": "fsdp", "optimizer": "adamw"})
    if config.lora.rank == 0:
        loras = [kind | adapted(config) for kind in kinds]
        kinds += _offloaded(kinds, config, machine) + _lighter(config, machine) + loras
    if config.lora.bits == 16 and machine.is_gpu and config.precision != "fp32":
        kinds.append({"shard": "none", **quartered(config)})
    for kind in kinds:
        for smaller in smaller_passes(config.model_copy(update=kind)):
            yield kind | smaller


def _offloaded(kinds: Sequence[Changes], config: Config, machine: Machine) -> list[Changes]:
    """The same with AdamW's moments in main memory, where there is another one."""
    if not machine.is_gpu or config.offload != "none":
        return []
    made = [kind | {"offload": "optimizer"} for kind in kinds]
    return [kind for kind in made if kind.get("optimizer", config.optimizer) == "adamw"]


def _lighter(config: Config, machine: Machine) -> list[Changes]:
    """Optimizers that keep less than the one that is set; adapters are too few to need one."""
    is_away = machine.is_gpu and config.offload != "none"
    if config.optimizer != "adamw" or config.shard == "fsdp" or is_away:
        return []
    names: list[Optimizer] = ["adamw_8bit", "adafactor"] if machine.is_gpu else ["adafactor"]
    back = {} if config.offload == "none" else {"offload": "none"}
    return [{"optimizer": name} | back for name in names]


def adapted(config: Config) -> Changes:
    """What makes full training one of adapters; nothing where it is that."""
    if config.lora.rank:
        return {}
    tower = {"tower": "frozen"} if config.tower == "full" else {}
    return {"lora": config.lora.model_copy(update={"rank": RANK})} | tower


def quartered(config: Config) -> Changes:
    """The same with the base in 4 bits."""
    changes = adapted(config)
    lora = changes.get("lora", config.lora)
    return changes | {"lora": lora.model_copy(update={"bits": 4})}


PASSES, CHECKPOINTING = "accumulation", "gradient_checkpointing"


def smaller_passes(
    config: Config, keys: Collection[str] = (PASSES, CHECKPOINTING)
) -> Iterator[Changes]:
    """Nothing at first; then passes of fewer pairs, then the same with checkpointing.

    Every pass of a divided model sends all of it: there, checkpointing comes before more passes.
    Only `keys` change.
    """
    pairs, rows = (count // config.processes for count in (config.batch_pairs, config.keep_rows))
    passes = [
        n
        for n in range(config.passes, pairs + 1)
        if pairs % n == 0 and (config.w_keep == 0 or rows % n == 0)
    ]
    divisions: list[Changes] = [{}, *({PASSES: n} for n in passes[1:] if PASSES in keys)]
    if config.checkpointing or CHECKPOINTING not in keys:
        yield from divisions
        return
    yield from divisions[:1] if config.shard == "fsdp" else divisions
    yield from ({CHECKPOINTING: True} | division for division in divisions)


def named(changes: Mapping[str, Any]) -> dict[str, Any]:
    """The changes by their keys in params.yaml; of LoRA what the other settings leave open."""
    found = {f"train.{key}": value for key, value in changes.items() if key != "lora"}
    if "lora" not in changes:
        return found
    lora = changes["lora"]
    bits = {"train.lora.bits": 4} if lora.bits == 4 else {}
    return {"train.lora.rank": lora.rank} | bits | found


def pass_of(subject: Subject, config: Config, answer: int, machine: Machine) -> Pass:
    """One pass of one process in numbers; answers as long as they may be."""
    sizes, roles = subject.sizes, subject.sizes.parameters
    is_lora, is_bf16 = config.lora.rank > 0, _is_bf16(config, machine)
    names = subject.adapted(config.tower, config.lora.targets) if is_lora else []
    adapters = config.lora.rank * sum(sum(sizes.linears[name]) for name in names)
    layers = [n for n in range(len(sizes.windows)) if includes(config.attn_layers, n)]
    passes = Weights.of(config).passes()
    return Pass(
        pairs=config.pass_pairs,
        answer=answer,
        trained=adapters if is_lora else sum(roles[role] for role in _free(config)),
        optimizer=config.optimizer,
        factored=_factored(sizes, config, names),
        visits=_largest(sizes, config, names) if config.offload == "optimizer" else 0,
        away=config.offload == "optimizer" and machine.is_gpu,
        adapters=adapters,
        ranks=config.lora.rank * len(names),
        adapted=_share(subject, config, names),
        layers=len(layers) if config.w_attn > 0 else 0,
        stored=_stored(subject, config, is_bf16),
        each=2 if is_bf16 else memory.FP32,
        passes=config.passes * len(passes),
        processes=config.processes,
        divided=config.shard == "fsdp",
        checkpointing=config.checkpointing,
        shares=config.w_dpo > 0 and subject.shares(sizes.prompt + answer),
        guided="guided" in passes,
        kept=config.keep_rows // config.parts if "kept" in passes else 0,
        fused=machine.is_gpu,
        distilled=config.keep_form == "kl",
        trains_head=not is_lora,
        trains_tower=config.tower != "frozen",
    )


def _factored(sizes: Sizes, config: Config, names: Sequence[str]) -> int:
    """Rows and columns of what is trained: of an adapter r and the inputs, r and the outputs."""
    if config.lora.rank:
        return sum(2 * config.lora.rank + sum(sizes.linears[name]) for name in names)
    return sum(sizes.factored[role] for role in _free(config))


def _largest(sizes: Sizes, config: Config, names: Sequence[str]) -> int:
    """Numbers of the largest tensor of what is trained."""
    if config.lora.rank:
        return config.lora.rank * max(max(sizes.linears[name]) for name in names)
    return max(sizes.largest[role] for role in _free(config))


def _free(config: Config) -> tuple[Role, ...]:
    """The parts that full training changes."""
    return ("projector", "decoder", "tower") if config.tower == "full" else ("projector", "decoder")


def _share(subject: Subject, config: Config, names: Sequence[str]) -> float:
    """The inputs of these layers, of those of all linear layers of the parts that have adapters."""
    inputs = {name: shape[0] for name, shape in subject.sizes.linears.items()}
    every = sum(inputs[name] for name in subject.adapted(config.tower, "all")) if names else 1
    return sum(inputs[name] for name in names) / every


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
    quantised = sum(math.prod(sizes.linears[name]) for name in subject.adapted("frozen", "all"))
    everything = sum(sizes.parameters.values())
    return (NF4 * quantised + 2 * (everything - quantised)) / everything


def states(subject: Subject, config: Config) -> dict[Role, str]:
    """What training does with each part of the model, in words."""
    if config.lora.rank == 0:
        return {role: _full(role, config) for role in ROLES}
    names = subject.adapted(config.tower, config.lora.targets)
    found: dict[Role, str] = dict.fromkeys(ROLES, "frozen")
    for role in ROLES:
        mine = set(names) & set(linear_layers(subject.model, role))
        numbers = config.lora.rank * sum(sum(subject.sizes.linears[name]) for name in mine)
        if mine:
            found[role] = f"adapters of rank {config.lora.rank}: {numbers:,} weights"
    return found


def _full(role: Role, config: Config) -> str:
    return "trained" if role != "tower" or config.tower == "full" else "frozen"
