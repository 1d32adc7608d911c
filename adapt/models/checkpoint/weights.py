"""What a folder's weights hold, read from the heads of its files, and whether it is what the
model of its config.json takes: every tensor, by name and shape, before anything is computed.
"""

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from adapt.models.checkpoint.folder import check_file, foreign, read_object
from adapt.models.checkpoint.limits import within
from adapt.params import InputError

WHOLE, INDEX = "model.safetensors", "model.safetensors.index.json"
SECONDS = 20.0  # the modules of a model of 70 billion weights are there in one, without weights
# Names of floating dtypes in a safetensors file.
FLOATING = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
}


@dataclass(frozen=True)
class Stored:
    """A tensor in a file: where, and its dtype as safetensors names it."""

    file: Path
    dtype: str
    shape: tuple[int, ...]


Tensors = Mapping[str, Stored]


# ---- what is stored ----------------------------------------------------------------------------


def stored_tensors(folder: Path) -> dict[str, Stored]:
    """Every tensor of a model's weights by name; InputError for a file that is not whole."""
    index = folder / INDEX
    if (folder / WHOLE).is_symlink() or (folder / WHOLE).exists():
        if index.exists() and _shards(index) != [WHOLE]:
            raise InputError(f"{folder}: both {WHOLE} and {INDEX}; keep the one that is meant")
        return tensors_of([folder / WHOLE])
    if not index.exists():
        raise InputError(f"{folder}: {_without_weights(folder)}")
    tensors = tensors_of([folder / name for name in _shards(index)])
    for name, shard in read_object(index)["weight_map"].items():
        if name not in tensors or tensors[name].file.name != shard:
            raise InputError(f"{folder / shard}: no tensor {name}, which {INDEX} says is in it")
    return tensors


def has_weights(folder: Path) -> bool:
    """Whether there is anything that would be loaded, or refused, as weights."""
    patterns = ("*.safetensors", INDEX, "pytorch_model*.bin", "adapter_config.json")
    return any(path for pattern in patterns for path in folder.glob(pattern))


def tensors_of(files: Iterable[Path]) -> dict[str, Stored]:
    """The tensors of safetensors files, by the heads of the files."""
    from safetensors import safe_open

    tensors: dict[str, Stored] = {}
    for path in files:
        check_file(path)
        with (
            foreign(f"{path}: not a whole safetensors file"),
            safe_open(path, framework="pt") as file,
        ):
            parts = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
            found = {
                name: Stored(path, part.get_dtype(), tuple(part.get_shape()))
                for name, part in parts.items()
            }
        for name in found:
            if name in tensors:
                raise InputError(f"{path}: tensor {name} is also in {tensors[name].file.name}")
        tensors |= found
    if not tensors:
        raise InputError(f"{path}: no tensor in it")
    return tensors


def stored_dtype(tensors: Tensors) -> torch.dtype:
    """The floating dtype of most weights."""
    counts: Counter[str] = Counter()
    for tensor in tensors.values():
        counts[tensor.dtype] += math.prod(tensor.shape)
    known = {FLOATING[kind]: count for kind, count in counts.items() if kind in FLOATING}
    return max(known, key=lambda kind: known[kind], default=torch.float32)


def _shards(index: Path) -> list[str]:
    """Names of the files that an index lists, which lie beside it."""
    content = read_object(index)
    for key in ("metadata", "weight_map"):
        if not isinstance(content.get(key), dict):
            raise InputError(f"{index}: no {key}, without which no weights are found")
    files = content["weight_map"]
    for tensor, name in files.items():
        if not isinstance(name, str) or Path(name).name != name or "\0" in name:
            problem = f"tensor {tensor} is in {name!r}, which is no file of this folder"
            raise InputError(f"{index}: {problem}")
    if not files:
        raise InputError(f"{index}: its weight_map is empty")
    return sorted(set(files.values()))


def _without_weights(folder: Path) -> str:
    """Why there is nothing to load, by what lies there instead."""
    others = sorted(path.name for path in folder.iterdir() if path.suffix == ".safetensors")
    pickled = sorted(path.name for path in folder.iterdir() if path.suffix in (".bin", ".pt"))
    reason = "no weights (*.safetensors) in this folder"
    if others:
        return f"no weights in this folder under a name that is read ({WHOLE}), only {others[0]}"
    if pickled:
        return f"{reason}; {pickled[0]} is pickled and may hold code: convert it first"
    return reason


# ---- whether it fits ---------------------------------------------------------------------------


def check_fit(folder: Path, config: Any, tensors: Tensors) -> None:
    """Raises InputError unless the tensors are those of the config's model, by name and shape.

    transformers itself loads them as tensors without values, so that what it renames, ties and
    leaves out is judged as it will be when the weights are loaded, and no memory is taken.
    """
    # 1. A dry run. What is wrong with the config's sizes shows here, too.
    where = f"{folder / 'config.json'}: no model can be built from it"
    with foreign(where):
        info = within(SECONDS, where, lambda: _dry_run(config, tensors))
    # 2. What transformers would report, fill with random numbers, and go on.
    for name, found, expected in sorted(info["mismatched_keys"], key=lambda one: one[0]):
        stored = _nearest(name, tensors)
        problem = f"{list(found)}, and config.json makes it {list(expected)}"
        raise InputError(f"{tensors[stored].file}: tensor {stored} is {problem}")
    missing, foreign_names = sorted(info["missing_keys"]), sorted(info["unexpected_keys"])
    if missing:
        file = tensors[_nearest(missing[0], tensors)].file
        instead = f"; in it, {_and_more(foreign_names)} has no place" if foreign_names else ""
        raise InputError(f"{file}: no tensor {_and_more(missing)}, which the model needs{instead}")
    if foreign_names:
        file = tensors[_nearest(foreign_names[0], tensors)].file
        problem = "has no place in the model of config.json"
        raise InputError(f"{file}: tensor {_and_more(foreign_names)} {problem}")


def _dry_run(config: Any, tensors: Tensors) -> dict[str, Any]:
    """transformers' report on loading tensors of these shapes."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity(logging.CRITICAL)
    logging.disable_progress_bar()
    try:
        with torch.device("meta"):
            weights = {name: torch.empty(one.shape) for name, one in tensors.items()}
            _, info = MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING[type(config)].from_pretrained(
                None,
                config=config,
                state_dict=weights,
                device_map={"": "meta"},
                ignore_mismatched_sizes=True,
                output_loading_info=True,
                attn_implementation="sdpa",
            )
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
    return dict(info)


def check_finite(model: torch.nn.Module, tensors: Tensors) -> None:
    """Raises InputError for a weight that is infinite or no number."""
    for name, weight in model.state_dict().items():
        # A sum of half the time of a look at every value; it overflows only where values do.
        if not weight.is_floating_point() or weight.sum(dtype=torch.float64).isfinite():
            continue
        count = int((~weight.isfinite()).sum())
        if count:
            stored = _nearest(name, tensors)
            problem = f"{count} of {weight.numel()} values are infinite or no number"
            raise InputError(f"{tensors[stored].file}: tensor {stored}: {problem}")


def _nearest(name: str, tensors: Tensors) -> str:
    """The stored name that shares the longest end with a name of the model.

    >>> _nearest("model.language_model.norm.weight", {"language_model.model.norm.weight": 1})
    'language_model.model.norm.weight'
    """

    def common(stored: str) -> int:
        pairs = zip(reversed(name.split(".")), reversed(stored.split(".")), strict=False)
        return next((i for i, (a, b) in enumerate(pairs) if a != b), len(stored))

    return max(tensors, key=common)


def _and_more(names: list[str]) -> str:
    return names[0] + (f" (and {len(names) - 1} more)" if len(names) > 1 else "")
