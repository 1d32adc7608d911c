"""Where a model goes."""

import pytest
import torch

from adapt.models.device import generation_dtype, resolve
from adapt.params import InputError


def test_auto_is_what_is_there(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert resolve("auto") == resolve("cpu") == torch.device("cpu")
    with pytest.raises(InputError, match=r"^device: cuda is not there; this machine has cpu$"):
        resolve("cuda")
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert resolve("auto") == resolve("mps") == torch.device("mps")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert resolve("auto") == torch.device("cuda")


def test_sixteen_bits_only_where_the_hardware_has_them(monkeypatch):
    assert generation_dtype("cpu") == generation_dtype("mps") == torch.float32
    for has, dtype in ((True, torch.bfloat16), (False, torch.float32)):
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda *_, has=has, **__: has)
        assert generation_dtype(torch.device("cuda")) == dtype
