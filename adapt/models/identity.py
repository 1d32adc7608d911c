"""A short name for what a result was computed from: a model's weights and config, and its inputs.

Two loads of one model have one name; one step of training gives it another.
"""

import hashlib
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor


def content_key(model: Any, inputs: Mapping[str, Any], *settings: object) -> str:
    """Hex digest of config, weights, the tensors in `inputs`, and the `repr` of `settings`."""
    digest = hashlib.blake2b(model.config.to_json_string().encode(), digest_size=16)
    tensors = {**model.state_dict(), **{f"inputs/{key}": value for key, value in inputs.items()}}
    for name, tensor in tensors.items():
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)} ".encode())
        digest.update(_fingerprint(tensor.detach()))
    digest.update(repr(settings).encode())
    return digest.hexdigest()


def _fingerprint(tensor: Tensor) -> bytes:
    """One 64-bit word per row, computed on the device; a sha of a large model takes many seconds.

    The word is the exclusive or of the row's values, so exchanging two values inside a row goes
    unnoticed.
    """
    if not tensor.numel():
        return b""
    rows = tensor.reshape(tensor.shape[0] if tensor.dim() > 1 else 1, -1)
    return torch.hash_tensor(rows, dim=1).view(torch.int64).cpu().numpy().tobytes()
