"""Where a model goes, and in which numbers it answers there: the one place that decides it."""

import torch

from adapt.models.settings import Device
from adapt.params import require


def resolve(device: Device) -> torch.device:
    """The device behind the key `device`; "auto" is the first of cuda, mps and cpu that is there.

    Raises InputError where a device is asked for by name and is not there.
    """
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    found = [name for name, is_there in available.items() if is_there]
    if device == "auto":
        return torch.device([*found, "cpu"][0])
    problem = f"{device} is not there; this machine has {', '.join([*found, 'cpu'])}"
    require(device == "cpu" or device in found, "device", problem)
    return torch.device(device)


def generation_dtype(device: torch.device | str) -> torch.dtype:
    """bfloat16 on a GPU whose hardware has it, else float32.

    A CPU computes in 32 bits whatever the checkpoint holds: 16-bit weights fit into them exactly.
    """
    if torch.device(device).type != "cuda":
        return torch.float32
    has_bf16 = torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.bfloat16 if has_bf16 else torch.float32
