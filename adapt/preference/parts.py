"""What of a model is trained, adapted and frozen: by role, in one table, each with its rate.

    part       state     tensors  parameters  dtype    learning rate
    tower      frozen         36     112,320  float32
    projector  trained         4      18,624  float32         0.0004
    decoder    trained        31     281,568  float32         0.0004

The roles come from the model's structure (`adapt/models/roles.py`). Data-parallel training expects
a gradient for every trained tensor, so those that no answer depends on (the last block of a tower
of which an earlier one is read, its pooling head) are found by one backward pass and frozen.
"""

import csv
import dataclasses
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from adapt.models.roles import ROLES, Role, role_of_parameters
from adapt.preference.collate import NOT_INPUTS, chosen_half, part
from adapt.preference.settings import Config

State = Literal["frozen", "unused", "trained", "adapters"]
LORA = ".lora_"


@dataclasses.dataclass(frozen=True)
class Row:
    """Tensors of a part that are treated alike; `rate` is None where they stay as they are."""

    part: Role
    state: State
    tensors: int
    parameters: int
    dtype: str
    rate: float | None


@dataclasses.dataclass(frozen=True)
class Parts:
    """What a training run does with a model.

    Args:
        trained: the base's parameters that training changes, adapted ones included, by name.
        table: all parameters, adapters included.
    """

    trained: Mapping[str, Role]
    table: tuple[Row, ...]

    def metrics(self) -> dict[str, float]:
        """Numbers of parameters, for the run's results."""
        totals: Counter[str] = Counter()
        for row in self.table:
            totals["frozen" if row.rate is None else "trained"] += row.parameters
        return {f"parameters/{name}": float(totals[name]) for name in ("trained", "frozen")}


def free(model: nn.Module, config: Config) -> dict[str, Role]:
    """Let gradients reach what full training changes, and nothing else; returns all roles.

    As LLaVA's own fine-tuning: decoder and projector are trained, the vision tower if asked for.
    """
    roles, kept = role_of_parameters(model), {"full": ()}.get(config.tower, ("tower",))
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(roles[name] not in kept)
    return roles


def describe(trainer: Any, roles: Mapping[str, Role], config: Config) -> Parts:
    """Freeze what no answer depends on, set the rates, and say what is left; before training."""
    unused = _freeze_unused(trainer)
    rates = _set_rates(trainer, roles, config)
    groups: dict[tuple[Role, State, str, float | None], list[int]] = {}
    trained: dict[str, Role] = {}
    for full_name, parameter in trainer.model.named_parameters():
        name, rate = _base_name(full_name), rates.get(id(parameter))
        state = _state(full_name, rate, full_name in unused)
        dtype = str(parameter.dtype).removeprefix("torch.")
        groups.setdefault((roles[name], state, dtype, rate), []).append(parameter.numel())
        if rate is not None:
            trained[name] = roles[name]
    table = [
        Row(role, state, len(sizes), sum(sizes), dtype, rate)
        for (role, state, dtype, rate), sizes in groups.items()
    ]
    return Parts(trained, tuple(sorted(table, key=lambda row: (ROLES.index(row.part), row.state))))


def lines(table: Iterable[Row]) -> list[str]:
    """The table as it is printed."""
    text = [
        f"{'part':<10} {'state':<9} {'tensors':>7} {'parameters':>14}  {'dtype':<9} learning rate"
    ]
    for row in table:
        rate = "" if row.rate is None else f"{row.rate:g}"
        counts = f"{row.tensors:>7} {row.parameters:>14,}"
        text.append(f"{row.part:<10} {row.state:<9} {counts}  {row.dtype:<9} {rate}".rstrip())
    return text


def write(table: Iterable[Row], path: Path) -> None:
    """The table as a CSV file; no rate is an empty cell."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(field.name for field in dataclasses.fields(Row))
        writer.writerows(dataclasses.astuple(row) for row in table)


def _state(name: str, rate: float | None, is_unused: bool) -> State:
    if rate is None:
        return "unused" if is_unused else "frozen"
    return "adapters" if LORA in name else "trained"


def _base_name(name: str) -> str:
    """The parameter of the base that a parameter is, or that an adapter changes.

    >>> _base_name("base_model.model.lm.0.q_proj.lora_A.default.weight")
    'lm.0.q_proj.weight'
    """
    name = name.removeprefix("base_model.model.").replace(".base_layer.", ".")
    layer, adapter, _ = name.partition(LORA)
    return f"{layer}.weight" if adapter else name


def _freeze_unused(trainer: Any) -> set[str]:
    """Freeze the trained tensors that get no gradient from the first row; returns their names.

    Every worker takes the same row, so that all of them freeze the same.
    """
    # 1. One forward and backward pass of the answers, which leaves no random state changed.
    model, rows = trainer.model, [trainer.train_dataset[0]]
    batch = chosen_half(part(trainer.data_collator(rows), guided=False))
    inputs = {name: value for name, value in batch.items() if name not in NOT_INPUTS}
    inputs |= {"labels": inputs["input_ids"], "use_cache": False, "fused_lm_head": True}
    with torch.random.fork_rng(), trainer.accelerator.autocast():
        loss = model(**trainer._prepare_inputs(inputs)).log_probs.sum()
    loss.backward()
    # 2. What has no gradient now never gets one.
    return freeze_unreached(model)


def freeze_unreached(model: nn.Module) -> set[str]:
    """Freeze the tensors that a backward pass gave no gradient, and clear those of the others."""
    unused = set()
    for name, parameter in model.named_parameters():
        if parameter.requires_grad and parameter.grad is None:
            parameter.requires_grad_(False)
            unused.add(name)
    model.zero_grad(set_to_none=True)
    return unused


def _set_rates(trainer: Any, roles: Mapping[str, Role], config: Config) -> dict[int, float]:
    """Give the tower's tensors their own rate; returns the rate of each trained tensor by id.

    transformers makes the optimizer and its groups, with and without weight decay; each of them is
    divided by rate. The schedule multiplies all rates alike.
    """
    optimizer = trainer.create_optimizer()
    names = {id(p): _base_name(name) for name, p in trainer.model.named_parameters()}
    rate_of = {"tower": config.tower_learning_rate}
    groups, rates = list(optimizer.param_groups), {}
    optimizer.param_groups.clear()
    for group in groups:
        divided: dict[float, list[nn.Parameter]] = {}
        for parameter in group["params"]:
            rate = rate_of.get(roles[names[id(parameter)]], config.learning_rate)
            divided.setdefault(rate, []).append(parameter)
            rates[id(parameter)] = rate
        for rate, parameters in (divided or {config.learning_rate: []}).items():
            optimizer.add_param_group({**group, "params": parameters, "lr": rate})
    return rates
