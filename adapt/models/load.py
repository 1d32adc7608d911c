"""Load a vision-language model and its processor from a folder or a hub id, and save them.

Weights are safetensors only, and no code of the model's is run.
"""

import importlib.util
from pathlib import Path
from typing import Any

from adapt.params import InputError


def load_model(source: str | Path) -> Any:
    """`AutoModelForImageTextToText` in eval mode, from a folder or a hub id.

    Raises InputError when a folder has no config or no safetensors weights, naming the folder.
    """
    from transformers import AutoModelForImageTextToText

    check_source(source)
    if Path(source).is_dir() and not any(Path(source).glob("*.safetensors")):
        raise InputError(f"{source}: no weights (*.safetensors) in this folder")
    return AutoModelForImageTextToText.from_pretrained(
        str(source), use_safetensors=True, trust_remote_code=False, attn_implementation="sdpa"
    ).eval()


def load_processor(source: str | Path) -> Any:
    """`AutoProcessor` from a folder or a hub id; pictures on PIL, so that no torchvision is needed.

    Families whose processor also reads video (Qwen-VL, LLaVA-OneVision, SmolVLM, InternVL) need
    torchvision for that part; InputError says so where it is missing.
    """
    from transformers import AutoImageProcessor, AutoProcessor

    if Path(source).is_dir() and not (Path(source) / "tokenizer_config.json").exists():
        raise InputError(f"{source}: no processor (tokenizer_config.json) beside the model")
    try:
        return AutoProcessor.from_pretrained(str(source), trust_remote_code=False, backend="pil")
    except (ImportError, ValueError) as error:  # no video part exists for PIL
        if importlib.util.find_spec("torchvision") is None:
            reason = str(error).splitlines()[0]
            raise InputError(f"{source}: its processor needs torchvision ({reason})") from None
    processor = AutoProcessor.from_pretrained(str(source), trust_remote_code=False)
    images = AutoImageProcessor.from_pretrained(str(source), trust_remote_code=False, backend="pil")
    processor.image_processor = images
    return processor


def check_source(source: str | Path) -> None:
    """Raises InputError for what is neither a folder with a config nor looks like a hub id."""
    folder = Path(source)
    looks_local = isinstance(source, Path) or str(source).startswith((".", "/", "~"))
    if not folder.is_dir() and (looks_local or str(source).count("/") != 1):
        raise InputError(f"{source}: no such folder, and not a hub id (owner/name)")
    if folder.is_dir() and not (folder / "config.json").exists():
        raise InputError(f"{source}: no model here (config.json is missing)")


def save(model: Any, processor: Any, folder: Path) -> None:
    """Write weights, config and processor files that `load_model` and `load_processor` read."""
    backend = getattr(processor.tokenizer, "backend_tokenizer", None)
    # A tokenizer keeps the last call's truncation and padding, and would be saved with them.
    if backend is not None:
        backend.no_truncation()
        backend.no_padding()
    model.save_pretrained(folder, safe_serialization=True)
    processor.save_pretrained(folder)
