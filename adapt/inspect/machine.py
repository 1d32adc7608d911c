"""The memory that a process can have: a GPU's, or the machine's as far as it may be used."""

import dataclasses
from pathlib import Path

import psutil
import torch

from adapt.generation.batches import CGROUPS
from adapt.models.device import generation_dtype

GIB = 2**30
# Python, torch and transformers, before a model is there: 516 MiB measured on Linux. On a GPU it is
# CUDA's context, in the GPU's memory: assumed.
RUNTIME = GIB // 2
# The rest is for what an allocator cannot use, and for estimates that are too low: measured peaks
# were up to 1.2 times the expected ones (benchmarks/memory.py).
USABLE = 0.8


@dataclasses.dataclass(frozen=True, kw_only=True)
class Machine:
    """Where the work would be done.

    `memory`: bytes of one GPU, or of the machine, whose processes then share it. `generation`: the
    numbers that answers are computed in.
    """

    name: str
    is_gpu: bool
    memory: int
    generation: torch.dtype

    def limit(self, processes: int) -> int:
        """Bytes that one of some processes can fill with its model and its batches."""
        return int(self.memory * USABLE / (1 if self.is_gpu else processes)) - RUNTIME


def machine(device: torch.device) -> Machine:
    """The machine that this process runs on, as the device sees it."""
    dtype, is_gpu = generation_dtype(device), device.type == "cuda"
    if not is_gpu:
        name, size = "the memory of this machine", _memory()
    else:
        properties = torch.cuda.get_device_properties(device)
        name, size = properties.name, properties.total_memory
    return Machine(name=name, is_gpu=is_gpu, memory=size, generation=dtype)


def imagined(gib: float) -> Machine:
    """A GPU that is not here, and that has bf16."""
    size = round(gib * GIB)
    return Machine(name="a GPU", is_gpu=True, memory=size, generation=torch.bfloat16)


def _memory() -> int:
    """Bytes of the machine, or of the container in which this process runs."""
    texts = (_text(limit) for limit, _ in CGROUPS)
    limits = [int(text) for text in texts if text.isdigit()]
    return min([psutil.virtual_memory().total, *limits])


def _text(path: Path) -> str:
    return path.read_text().strip() if path.exists() else ""
