"""The folder of a LoRA adapter: loaded with the base that it names, or refused in one line."""

from pathlib import Path
from typing import Any

import torch

from adapt.models.checkpoint.folder import foreign, is_adapter, read_object
from adapt.models.checkpoint.weights import WHOLE, Tensors, check_finite, tensors_of
from adapt.params import InputError

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"


def base_of(folder: Path) -> Path:
    """The folder of the model that an adapter belongs to, as its configuration names it."""
    path = folder / CONFIG
    values = read_object(path)
    if (folder / WHOLE).exists():
        raise InputError(f"{folder}: both {WHOLE} and {CONFIG}; keep the model or its adapter")
    if values.get("peft_type") != "LORA":
        raise InputError(f"{path}: peft_type {values.get('peft_type')}; only LORA can be merged")
    name = values.get("base_model_name_or_path")
    if not isinstance(name, str) or not name:
        raise InputError(f"{path}: an adapter that names no base (base_model_name_or_path)")
    # Beside the adapter, for folders that were moved together, or from here.
    places = (folder / name, Path(name).expanduser())
    base = next((place.resolve() for place in places if place.is_dir()), None)
    if base is None:
        problem = f"an adapter of {name}, which is no folder here; fetch that model and name its"
        raise InputError(f"{path}: {problem} folder in base_model_name_or_path, or merge the two")
    if is_adapter(base):
        raise InputError(f"{path}: its base {name} is an adapter, too")
    return base


def merged(model: Any, folder: Path) -> Any:
    """The base `model` with the adapter's weights added to its own."""
    from peft import PeftModel

    path = folder / WEIGHTS
    if not path.exists():
        raise InputError(f"{folder}: no weights of the adapter ({WEIGHTS})")
    tensors = tensors_of([path])
    _check_rank(folder, tensors)
    with foreign(f"{folder}: the adapter does not fit its base"):
        adapted = PeftModel.from_pretrained(model, str(folder), is_trainable=False)
    _check_names(adapted, tensors)
    check_finite(adapted, tensors)
    with foreign(f"{folder}: the adapter cannot be merged into its base"):
        whole = adapted.merge_and_unload()
    # The weights are no longer those of the base's folder.
    whole.config.name_or_path = str(folder)
    return whole


def _check_rank(folder: Path, tensors: Tensors) -> None:
    """PEFT makes matrices of the rank that is written; it must be one that is stored."""
    rank = read_object(folder / CONFIG).get("r")
    sides = {side for tensor in tensors.values() for side in tensor.shape}
    if rank not in sides:
        raise InputError(f"{folder / CONFIG}: r is {rank}, which no tensor of {WEIGHTS} is wide")


def _check_names(adapted: Any, tensors: Tensors) -> None:
    """Raises InputError for a tensor of the adapter that is missing, or has no place."""
    from peft import get_peft_model_state_dict

    with torch.no_grad():
        expected = get_peft_model_state_dict(adapted, save_embedding_layers=False)
    path = next(iter(tensors.values())).file
    for name in sorted(expected.keys() ^ tensors.keys()):
        problem = "no tensor {}, which the adapter needs" if name in expected else ""
        raise InputError(
            f"{path}: {(problem or 'tensor {} has no place in its base').format(name)}"
        )
