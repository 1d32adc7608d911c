"""A model's config.json: checked as plain data before transformers builds anything from it."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from adapt.models.checkpoint.folder import foreign, read_object
from adapt.params import InputError

# Bounds of what can be meant: the largest models have some 130 layers, and no side above 2 ** 18.
# transformers makes modules for each layer and expert one by one, in Python.
COUNTED = re.compile(r"(^|_)(layers?|depth|experts|blocks)$")
MOST = 1000
SIZED = re.compile(r"(^|_)(size|dim|width|heads|embeddings)$")
LARGEST = 2**24
LONGEST = 10_000  # entries of a list
DTYPES = {"dtype", "torch_dtype"}


def read_config(folder: Path, source: str | Path) -> Any:
    """transformers' configuration; InputError names the key, or what the model would need.

    `source` is the folder's name in messages.
    """
    from transformers import CONFIG_MAPPING, AutoConfig

    path = folder / "config.json"
    if not path.exists():
        raise InputError(f"{source}: no model here (config.json is missing)")
    # 1. As plain data.
    values = read_object(path)
    for key, value in _entries(values):
        _check_entry(path, key, value)
    # 2. What transformers would need besides its own code.
    _check_kind(path, values, CONFIG_MAPPING)
    # 3. As transformers reads it.
    with foreign(path):
        return AutoConfig.from_pretrained(str(folder), trust_remote_code=False)


def check_answers(config: Any, source: str | Path) -> None:
    """Raises InputError unless transformers has a class that answers in words to pictures."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING

    if type(config) not in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING:
        problem = "takes no pictures and words (none of AutoModelForImageTextToText's)"
        raise InputError(f"{source}: a model of type {config.model_type} {problem}")


def _check_kind(path: Path, values: Mapping[str, Any], known: Mapping[str, Any]) -> None:
    kind = values.get("model_type")
    if not isinstance(kind, str):
        raise InputError(f"{path}: model_type is missing")
    if kind not in known:
        if "auto_map" in values:
            problem = f"{kind} needs code of its own (auto_map), which is not run"
            raise InputError(f"{path}: {problem}; transformers has none for it")
        raise InputError(f"{path}: model_type {kind} is unknown to transformers")
    for key in ("quantization_config", "compression_config"):
        if values.get(key):
            method = values[key].get("quant_method") if isinstance(values[key], dict) else None
            problem = f"the weights are quantised ({method or key}); weights in full precision"
            raise InputError(f"{path}: {key}: {problem} are needed (fp32, bf16 or fp16)")
    if values.get("transformers_weights"):
        problem = "a name of its own for the weights is not read; call them model.safetensors"
        raise InputError(f"{path}: transformers_weights: {problem}")


def _entries(values: Any, above: str = "") -> Iterator[tuple[str, Any]]:
    """Every value by its whole key, those inside lists as their list."""
    for key, value in values.items():
        yield f"{above}{key}", value
        if isinstance(value, dict):
            yield from _entries(value, f"{above}{key}.")


def _check_entry(path: Path, key: str, value: Any) -> None:
    name = key.rpartition(".")[2]
    number = value if isinstance(value, int | float) and not isinstance(value, bool) else 0
    if COUNTED.search(name) and not -MOST <= number <= MOST:
        raise InputError(f"{path}: {key} is {value}, more than {MOST}; no model has as many")
    if SIZED.search(name) and not -LARGEST <= number <= LARGEST:
        raise InputError(f"{path}: {key} is {value}, more than {LARGEST}; no model is as large")
    if isinstance(value, list) and len(value) > LONGEST:
        raise InputError(f"{path}: {key} has {len(value)} entries, more than {LONGEST}")
    if name in DTYPES and value not in (None, "auto"):
        is_one = isinstance(value, str) and isinstance(getattr(torch, value, None), torch.dtype)
        if not (is_one and getattr(torch, value).is_floating_point):
            raise InputError(f"{path}: {key}: {value} is no floating dtype")
