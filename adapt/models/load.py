"""Load a vision-language model and its processor from a folder or a hub id, and save them.

Weights are safetensors only, and no code of the model's is run. What is loaded is what the files
hold, every tensor of it, or nothing: `InputError` says in one line which file and tensor is not as
it should be.
"""

import copy
from pathlib import Path
from typing import Any

import torch

from adapt.models.checkpoint import adapter
from adapt.models.checkpoint.config import check_answers, read_config
from adapt.models.checkpoint.folder import (
    check_source,
    foreign,
    is_adapter,
    local_folder,
    read_if_there,
)
from adapt.models.checkpoint.processor import processor_in
from adapt.models.checkpoint.weights import check_finite, check_fit, stored_dtype, stored_tensors
from adapt.params import InputError

__all__ = ["check_source"]


def load_config(source: str | Path) -> Any:
    """transformers' configuration of a model; an adapter has that of its base."""
    folder = local_folder(source, weights=False)
    base = adapter.base_of(folder) if is_adapter(folder) else folder
    return read_config(base, source)


def load_model(
    source: str | Path,
    device: torch.device | str = "cpu",
    dtype: torch.dtype | None = torch.float32,
) -> Any:
    """`AutoModelForImageTextToText` in eval mode, from a folder or a hub id.

    `dtype` None: as most weights are stored. The folder of a LoRA adapter is loaded with its base,
    into which the adapter is merged.
    """
    folder = local_folder(source, weights=True)
    is_lora = is_adapter(folder)
    base = adapter.base_of(folder) if is_lora else folder
    try:
        model = _whole_model(base, source if base == folder else base, device, dtype)
        return (adapter.merged(model, folder) if is_lora else model).eval()
    except torch.OutOfMemoryError:
        problem = f"{source} does not fit into the memory of {device}; close what else is on it"
        raise InputError(f"device: {problem}, or set device to cpu") from None


def checkpoint_dtype(source: str | Path) -> torch.dtype:
    """What most of the weights are stored in."""
    folder = local_folder(source, weights=True)
    return stored_dtype(stored_tensors(adapter.base_of(folder) if is_adapter(folder) else folder))


def _whole_model(
    folder: Path, source: str | Path, device: torch.device | str, dtype: torch.dtype | None
) -> Any:
    """The model of a folder, all of its tensors from there."""
    from transformers import AutoModelForImageTextToText

    # 1. The configuration, and the heads of the files, before anything is built.
    config, tensors = read_config(folder, source), stored_tensors(folder)
    check_answers(config, source)
    check_fit(folder, config, tensors)
    read_if_there(folder / "generation_config.json")
    # 2. The weights.
    with foreign(f"{source}: the model cannot be loaded"):
        model = AutoModelForImageTextToText.from_pretrained(
            str(folder),
            config=config,
            use_safetensors=True,
            trust_remote_code=False,
            attn_implementation="sdpa",
            dtype=stored_dtype(tensors) if dtype is None else dtype,
        )
    # 3. Their values, where looking at them is fast.
    model = model.to(device)
    check_finite(model, tensors)
    return model


def load_processor(source: str | Path) -> Any:
    """The processor of a folder or a hub id, for pictures, with a pad token.

    It needs no torchvision: pictures go through PIL, and a part for video is left out.
    """
    folder = local_folder(source, weights=False)
    if is_adapter(folder) and not (folder / "tokenizer_config.json").exists():
        folder = adapter.base_of(folder)
    return processor_in(folder)


def save(model: Any, processor: Any, folder: Path, dtype: torch.dtype | None = None) -> None:
    """Write weights, config and processor files that `load_model` and `load_processor` read.

    `dtype`: what floating weights are stored in; None: what they are in memory.
    """
    backend = getattr(processor.tokenizer, "backend_tokenizer", None)
    # A tokenizer keeps the last call's truncation and padding, and would be saved with them.
    if backend is not None:
        backend.no_truncation()
        backend.no_padding()
    _save_weights(model, folder, dtype)
    processor.save_pretrained(folder)


def _save_weights(model: Any, folder: Path, dtype: torch.dtype | None) -> None:
    """Weights in `dtype`, and a configuration that says in all of its parts how they are stored."""
    weights = None
    if dtype is not None:
        state = model.state_dict().items()
        weights = {k: w.to(dtype) if w.is_floating_point() else w for k, w in state}
    model.save_pretrained(folder, state_dict=weights)
    config = copy.deepcopy(model.config)
    for part in (config, *(getattr(config, name, None) for name in config.sub_configs)):
        if part is not None:
            part.dtype = model.dtype if dtype is None else dtype
    config.save_pretrained(folder)
