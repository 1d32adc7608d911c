"""Adapters: loaded with their base, or refused in one line."""

import pytest
import torch
from peft import LoraConfig, get_peft_model

from adapt.inspect import __main__ as inspect_command
from adapt.models.load import checkpoint_dtype, load_config, load_model, load_processor
from adapt.models.roles import linear_layers
from tests.support.breaking import POINTER, edited, lost, without, written


@pytest.fixture
def adapter(whole, tmp_path):
    """The folder of an adapter of `whole` with weights of its own, and the model with it."""
    model = load_model(whole)
    settings = LoraConfig(r=2, lora_alpha=8, target_modules=linear_layers(model, "decoder"))
    adapted = get_peft_model(model, settings)
    for name, weight in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.1)
    adapted.save_pretrained(tmp_path / "adapter")
    return tmp_path / "adapter", adapted


def test_an_adapter_is_loaded_with_its_base(whole, adapter):
    folder, adapted = adapter
    expected = adapted.merge_and_unload().state_dict()
    found, base = load_model(folder).state_dict(), load_model(whole).state_dict()
    assert found.keys() == expected.keys() == base.keys()
    assert sum(not torch.equal(found[name], base[name]) for name in base) == 3 * 7
    for name, weight in expected.items():
        torch.testing.assert_close(found[name], weight)
    assert load_config(folder).model_type == "llava"
    assert checkpoint_dtype(folder) == torch.float32
    assert (
        load_processor(folder).tokenizer.get_vocab() == load_processor(whole).tokenizer.get_vocab()
    )
    assert inspect_command.main([str(folder)]) == 0


ADAPTERS = {
    "a base elsewhere": (
        edited("adapter_config.json", base_model_name_or_path="someone/llava"),
        "an adapter of someone/llava, which is no folder here",
    ),
    "no base": (edited("adapter_config.json", base_model_name_or_path=None), "names no base"),
    "another kind": (edited("adapter_config.json", peft_type="IA3"), "peft_type IA3"),
    "another rank": (edited("adapter_config.json", r=10**9), "r is 1000000000"),
    "no weights": (without("adapter_model.safetensors"), "no weights of the adapter"),
    "a tensor lost": (lost("lora_A.weight"), "lora_A.weight, which the adapter needs"),
    "a pointer": (written("adapter_model.safetensors", POINTER), "a git-lfs pointer"),
    "no JSON": (written("adapter_config.json", "{"), "adapter_config.json: not JSON"),
    "other layers": (
        edited("adapter_config.json", target_modules=["nowhere"]),
        "the adapter does not fit its base",
    ),
}


@pytest.mark.parametrize("name", ADAPTERS)
def test_a_broken_adapter_is_refused(adapter, refused, name):
    change, problem = ADAPTERS[name]
    change(adapter[0])
    assert problem in refused(adapter[0], load_model)


def test_an_adapter_of_itself_is_refused(adapter, refused):
    edited("adapter_config.json", base_model_name_or_path=".")(adapter[0])
    assert "is an adapter, too" in refused(adapter[0], load_model)
