"""Checkpoints of a divided model: a file for each worker, read again by any number of workers.

    shard-<rank>.safetensors    this worker's rows of every tensor; in the head, where they begin

FSDP divides a tensor by its first dimension. A reader takes the rows that are its own from
whichever files have them, so that a training goes on with more workers, with fewer, or undivided.
What is not divided, such as Adam's number of steps, is in the first worker's file. PyTorch's own
format (`torch.distributed.checkpoint`) has a head that has to be unpickled; this has none.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor
from torch.distributed.tensor import DTensor
from torch.distributed.tensor._utils import compute_local_shape_and_global_offset

from adapt.params import require

PREFIX = "shard-"
STARTS = "starts"  # in the head of a file: the first row of each tensor that is divided


def are_in(checkpoint: Path) -> bool:
    """Whether a checkpoint is of a divided model."""
    return any(checkpoint.glob(f"{PREFIX}*.safetensors"))


def write(folder: Path, tensors: Mapping[str, tuple[Tensor, Tensor]]) -> None:
    """Write this worker's share of `tensors`; all workers call it, each with a folder of its own or
    with the same one.

    Each with the tensor that says how it is divided: itself, or that whose rows it has.
    """
    rank = dist.get_rank() if dist.is_initialized() else 0
    held, starts = {}, {}
    for name, (tensor, whose) in tensors.items():
        start = _start(tensor, whose)
        if start is not None:
            starts[name] = start
        elif rank > 0:
            continue
        held[name] = local(tensor).cpu().contiguous()
    folder.mkdir(parents=True, exist_ok=True)
    head = {"format": "pt", STARTS: json.dumps(starts)}
    save_file(held, folder / f"{PREFIX}{rank}.safetensors", metadata=head)


def local(tensor: Tensor) -> Tensor:
    """What this worker holds of a tensor, the same memory: its rows, or all of an undivided one."""
    tensor = tensor.detach()
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


class Shards:
    """The open files of a checkpoint; `opened` closes them."""

    def __init__(self, folder: Path, files: list[Any]) -> None:
        self._folder, self._files = folder, files
        self._starts = [json.loads(file.metadata()[STARTS]) for file in files]
        self.names = {name for file in files for name in file.keys()}  # noqa: SIM118

    def fill(self, name: str, tensor: Tensor, whose: Tensor | None = None) -> None:
        """Copy what the checkpoint has under `name` into `tensor`, of a divided one the own rows.

        `whose`: the one that is divided, where `tensor` are its own rows. Raises InputError where
        it has not all of them, or of another shape.
        """
        into, begin = local(tensor), _start(tensor, whose) or 0
        # A number has one row of nothing.
        rows, found = (len(into), 0) if into.dim() else (1, 0)
        for file, starts in zip(self._files, self._starts, strict=True):
            if name not in file.keys():  # noqa: SIM118
                continue
            part, start = file.get_slice(name), starts.get(name, 0)
            if into.dim() == 0:
                into.copy_(file.get_tensor(name))
                found += 1
                continue
            shape = part.get_shape()
            here = list((tensor if whose is None else whose).shape)
            problem = f"{name} is {shape} there, and {here} here"
            require(tuple(shape[1:]) == into.shape[1:], str(self._folder), problem)
            first, last = max(start, begin), min(start + shape[0], begin + rows)
            if first < last:
                into[first - begin : last - begin].copy_(part[first - start : last - start])
                found += last - first
        problem = f"{found} of {rows} rows of {name} are there"
        require(found == rows, str(self._folder), problem)


@contextmanager
def opened(folder: Path) -> Iterator[Shards]:
    """The shards of a checkpoint."""
    with ExitStack() as stack:
        paths = sorted(folder.glob(f"{PREFIX}*.safetensors"))
        yield Shards(
            folder, [stack.enter_context(safe_open(path, framework="pt")) for path in paths]
        )


# ---- an optimizer ----------------------------------------------------------------------------


def state_of(optimizer: Any, names: Mapping[int, str]) -> dict[str, tuple[Tensor, Tensor]]:
    """What an optimizer holds of each parameter, and that, by `kind/parameter`; `names`: by id."""
    return {
        f"{kind}/{names[id(parameter)]}": (value, parameter)
        for parameter, state in optimizer.state.items()
        for kind, value in state.items()
    }


def fill_state(
    found: Shards,
    optimizer: Any,
    names: Mapping[int, str],
    made: Callable[[Tensor], Tensor] = torch.zeros_like,
) -> None:
    """Give an optimizer that has made no step the state of a checkpoint; `made`: a moment."""
    kinds: dict[str, list[str]] = {}
    for name in found.names:
        kind, _, parameter = name.partition("/")
        kinds.setdefault(parameter, []).append(kind)
    for group in optimizer.param_groups:
        is_on_device = group.get("fused") or group.get("capturable")
        for parameter in group["params"]:
            name = names[id(parameter)]
            state = optimizer.state[parameter]
            for kind in kinds.get(name, ()):
                if kind == WEIGHTS:
                    continue
                if kind == STEP:
                    device = parameter.device if is_on_device else torch.device("cpu")
                    state[kind] = torch.zeros((), dtype=torch.float32, device=device)
                else:
                    state[kind] = made(parameter.detach())
                found.fill(f"{kind}/{name}", state[kind], parameter)


WEIGHTS = "weights"  # the kind that is no optimizer's
STEP = "step"


def _start(tensor: Tensor, whose: Tensor | None = None) -> int | None:
    """The first row that this worker holds of what is divided; None where it is not."""
    divided = tensor if isinstance(tensor, DTensor) else whose
    # A number, such as Adam's of steps, is whole whatever it is of.
    if tensor.dim() == 0 or not isinstance(divided, DTensor):
        return None
    placed = (divided.shape, divided.device_mesh, divided.placements)
    return int(compute_local_shape_and_global_offset(*placed)[1][0])
