"""Low-rank adapters (LoRA, arXiv 2106.09685): where they go, and the model that they make.

With `train.lora.rank` above 0 adapters alone are trained, those of the decoder and, where
`train.tower` says so, of the vision tower; the projector stays as it is. They are float32 over a
base that may be 16-bit, or NF4 (QLoRA, arXiv 2305.14314). The result is a plain model: base plus
adapters, summed in float32. The adapters themselves lie beside it.
"""

import copy
import importlib.util
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import peft
import torch
from safetensors.torch import save_file
from torch import nn
from transformers import AutoModelForImageTextToText, BitsAndBytesConfig

from adapt.cluster.local import is_sent
from adapt.models.device import generation_dtype
from adapt.models.load import checkpoint_dtype, load_config, load_model
from adapt.models.roles import Role, linear_layers, role_of_parameters
from adapt.params import InputError, require
from adapt.preference.settings import Config, LoraConfig, Targets, Tower

ADAPTER = "adapter"  # the folder beside the weights of a tuned model


def adapted_roles(tower: Tower) -> tuple[Role, ...]:
    """The parts of a model that get adapters."""
    return ("tower", "decoder") if tower == "lora" else ("decoder",)


def adapted_layers(model: nn.Module, tower: Tower, targets: Targets) -> list[str]:
    """Names of the linear layers that get adapters.

    Raises InputError with the names that there are where `targets` has one that fits no layer, or
    where a part would get none.
    """
    chosen: list[str] = []
    layers = {role: linear_layers(model, role) for role in adapted_roles(tower)}
    for role, names in layers.items():
        some = [name for name in names if targets == "all" or _fits(name, targets)]
        known = f"its linear layers are {_suffixes(names)}"
        require(bool(some), "train.lora.targets", f"no layer of the {role} is named so; {known}")
        chosen += some
    for target in () if targets == "all" else targets:
        is_known = any(_fits(name, (target,)) for name in chosen)
        known = _suffixes([name for names in layers.values() for name in names])
        require(is_known, "train.lora.targets", f"no layer {target}; there are {known}")
    return chosen


def lora(model: nn.Module, section: LoraConfig, tower: Tower) -> peft.LoraConfig:
    """The adapters of `section` on the layers of `model`, as PEFT describes them."""
    return peft.LoraConfig(
        r=section.rank,
        lora_alpha=section.scale,
        lora_dropout=section.dropout,
        target_modules=adapted_layers(model, tower, section.targets),
    )


def check(config: Config, base: Path) -> None:
    """Raises InputError where the base has no part that `config` trains; reads no weights."""
    skeleton = _skeleton(base)
    role_of_parameters(skeleton)
    if config.lora.rank > 0:
        adapted_layers(skeleton, config.tower, config.lora.targets)
    if config.lora.bits == 4 and not is_sent():  # a job's driver may have no GPU
        _require_nf4()


def load_nf4(base: Path) -> Any:
    """The base with the decoder's linear layers in NF4; tower, projector and head in bfloat16."""
    _require_nf4()
    skeleton = _skeleton(base)
    quantised = set(linear_layers(skeleton, "decoder"))
    kept = [
        name
        for name, module in skeleton.named_modules()
        if isinstance(module, nn.Linear) and name not in quantised
    ]
    quantisation = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
        llm_int8_skip_modules=kept,
    )
    model = AutoModelForImageTextToText.from_pretrained(
        str(base),
        use_safetensors=True,
        trust_remote_code=False,
        attn_implementation="sdpa",
        dtype=torch.bfloat16,
        quantization_config=quantisation,
        device_map={"": 0},
    )
    return model.eval()


def hold_in_float32(model: nn.Module) -> None:
    """Adapters as float32, also those over an NF4 base, which TRL rounds to bfloat16."""
    for parameter in model.parameters():
        if parameter.requires_grad and parameter.dtype != torch.float32:
            parameter.data = parameter.data.float()


def merged(model: Any, base: Path) -> Any:
    """Base plus adapters as a plain model on the CPU, summed in float32.

    A base that is held as it is stored is widened where it is. Of one that has lost digits, to NF4
    or from float16 to bfloat16, the digits are read again.
    """
    is_nf4 = getattr(model, "is_loaded_in_4bit", False)
    if not is_nf4 and model.dtype in (torch.float32, checkpoint_dtype(base)):
        return model.to("cpu").float().merge_and_unload()
    fresh = likewise(load_model(base), model)
    state = {name: tensor.cpu() for name, tensor in peft.get_peft_model_state_dict(model).items()}
    peft.set_peft_model_state_dict(fresh, state)
    return fresh.merge_and_unload()


def likewise(fresh: Any, model: Any) -> Any:
    """Another copy of the base with new adapters where `model` has its own."""
    description = copy.copy(model.peft_config["default"])
    description.base_model_name_or_path = fresh.name_or_path  # or PEFT warns that it is another
    return peft.get_peft_model(fresh, description)


def save_adapter(model: Any, folder: Path) -> None:
    """The adapters as PEFT reads them, over any copy of the base: no path of this machine."""
    folder.mkdir(parents=True)
    state = peft.get_peft_model_state_dict(model)
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
    save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    description = model.peft_config["default"].to_dict()
    described = {key: _plain(value) for key, value in description.items()}
    described |= {"base_model_name_or_path": "", "inference_mode": True}
    text = json.dumps(described, indent=2, sort_keys=True)
    (folder / "adapter_config.json").write_text(text + "\n", encoding="utf-8")


def _skeleton(base: Path) -> Any:
    """The model without weights: its modules and their names."""
    with torch.device("meta"):
        return AutoModelForImageTextToText.from_config(load_config(base), trust_remote_code=False)


def _require_nf4() -> None:
    has_gpu = torch.cuda.is_available() and generation_dtype("cuda") == torch.bfloat16
    if importlib.util.find_spec("bitsandbytes") is None or not has_gpu:
        missing = "the package bitsandbytes" if has_gpu else "a CUDA GPU that has bf16"
        raise InputError(f"train.lora.bits: a base in 4 bits needs {missing}; set 16")


def _fits(name: str, targets: Sequence[str]) -> bool:
    return any(name == target or name.endswith(f".{target}") for target in targets)


def _suffixes(names: Sequence[str]) -> str:
    return ", ".join(sorted({name.rpartition(".")[2] for name in names}))


def _plain(value: Any) -> Any:
    return sorted(value) if isinstance(value, set) else value
