"""The numbers that training computes in, holds its weights in, and saves them in.

A step of Adam at learning rate 1e-6 changes a weight of 0.02 by a 20,000th of it; bfloat16 tells
neighbours apart at a 256th, float16 at a 2,048th. What is trained is therefore held in float32,
whatever the checkpoint holds; bf16 means that the passes compute in it (autocast), over those
weights. What is not trained, the base under adapters, may be held in 16 bits.
"""

from pathlib import Path
from typing import Any

import torch
from torch import nn

from adapt.models.device import generation_dtype
from adapt.models.load import checkpoint_dtype
from adapt.models.roles import blocks
from adapt.preference.settings import Config

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
NAMES = {dtype: name for name, dtype in DTYPES.items()}


def computes_in_bf16(config: Config, device: torch.device) -> bool:
    """Whether the passes run under autocast to bfloat16."""
    if config.precision == "auto":
        return generation_dtype(device) == torch.bfloat16
    return config.precision == "bf16"


def let_copies_go(model: nn.Module) -> None:
    """Under autocast a block's 16-bit copies of its weights go when its forward has ended.

    Autocast would keep those of all blocks until the model's forward has ended, in case a weight is
    used again. For a backward autograd has them, but where activations are computed again; then a
    backward makes those of one block anew. Outside of blocks they stay: the head takes its own for
    every tile of logits.
    """
    for name in blocks(model):
        model.get_submodule(name).register_forward_hook(_forget)


def _forget(*_: Any) -> None:
    torch.clear_autocast_cache()


def base_dtype(config: Config, base: Path, device: torch.device) -> torch.dtype:
    """What the base is loaded in: bfloat16 where adapters train in it over 16 bits, else float32.

    A float16 base is rounded to bfloat16 for the passes, whose products are in bfloat16 anyway:
    autocast does not take the two side by side. The result is made from the digits of the file.
    """
    if config.lora.rank == 0 or not computes_in_bf16(config, device):
        return torch.float32
    is_half = checkpoint_dtype(base) in (torch.bfloat16, torch.float16)
    return torch.bfloat16 if is_half else torch.float32


def asked_dtype(config: Config, base: Path) -> torch.dtype:
    """What the result is stored in: what `train.save_dtype` names, or what the base is."""
    if config.save_dtype != "auto":
        return DTYPES[config.save_dtype]
    own = checkpoint_dtype(base)
    return own if own in NAMES else torch.float32
