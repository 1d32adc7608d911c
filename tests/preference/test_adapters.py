"""Where adapters go, and that base, adapters and merged model say the same."""

import json
from pathlib import Path

import peft
import pytest
import torch

from adapt.models.load import load_model, save
from adapt.pairs.table import write_pairs
from adapt.params import InputError
from adapt.preference import adapters
from adapt.preference.fit import fit
from tests.support import families, tiny_world
from tests.support.preference_rows import lora, origin, pairs, settings


@pytest.mark.parametrize("name", families.CASES)
def test_all_linear_layers_of_the_decoder_are_adapted(name):
    """Seven in a block, whatever the block's module is called; the output layer is none of them.

    GLM has gate and up projection in one.
    """
    model, _ = families.built(name)
    layers = adapters.adapted_layers(model, "frozen", "all")
    blocks = model.config.get_text_config().num_hidden_layers
    assert len(layers) == (6 if name == "glm4v" else 7) * blocks
    tower = set(adapters.adapted_layers(model, "lora", "all")) - set(layers)
    assert tower and not any("lm_head" in layer for layer in [*layers, *tower])


@pytest.mark.parametrize(
    ("targets", "tower", "message"),
    [
        (("q_proj", "qproj"), "frozen", "no layer qproj; there are down_proj, gate_proj, k_proj"),
        (("o_proj",), "lora", "no layer of the tower is named so; its linear layers are fc1, fc2"),
        (("proj",), "frozen", "no layer of the decoder is named so"),
    ],
)
def test_a_target_that_is_no_layer_is_named(targets, tower, message):
    with pytest.raises(InputError, match=f"^train.lora.targets: {message}"):
        adapters.adapted_layers(tiny_world.model(), tower, targets)


def test_chosen_targets_alone_are_adapted():
    layers = adapters.adapted_layers(tiny_world.model(), "frozen", ("q_proj", "v_proj"))
    assert {name.rpartition(".")[2] for name in layers} == {"q_proj", "v_proj"}
    assert len(layers) == 2 * tiny_world.SHAPE.text_layers


def test_four_bits_need_their_package_and_a_gpu(base):
    with pytest.raises(InputError, match=r"^train.lora.bits: a base in 4 bits needs .*; set 16$"):
        adapters.check(settings(lora=lora(bits=4)), Path(base))


@pytest.fixture(scope="module")
def tuned(tmp_path_factory) -> Path:
    """`base/` in float16, and `out/model` tuned from it by adapters of decoder and tower."""
    folder = tmp_path_factory.mktemp("tuned")
    save(tiny_world.model(), tiny_world.processor(), folder / "base", torch.float16)
    write_pairs(folder / "pairs.parquet", pairs(8), origin())
    (folder / "out").mkdir()
    section = lora(4, alpha=6.0, dropout=0.1)
    config = settings(steps=3, lora=section, tower="lora", precision="bf16", save_dtype="fp32")
    where = (folder / "base", folder / "pairs.parquet", folder / "out", folder / "state")
    fit(config, *where, lambda step, metrics: None)
    return folder


def test_base_and_adapters_are_the_merged_model(tuned):
    """PEFT reads what lies beside the weights; a base in float16 loses no digit on the way."""
    base = load_model(tuned / "base")
    again = peft.PeftModel.from_pretrained(base, tuned / "out/model/adapter").merge_and_unload()
    merged, state = load_model(tuned / "out/model").state_dict(), again.state_dict()
    stored = load_model(tuned / "base").state_dict()
    assert {name for name in stored if not merged[name].equal(stored[name])} == {
        f"{layer}.weight" for layer in adapters.adapted_layers(tiny_world.model(), "lora", "all")
    }
    for name in stored:
        assert merged[name].equal(state[name]), name


def test_adapters_name_no_place_of_this_machine(tuned):
    text = (tuned / "out/model/adapter/adapter_config.json").read_text()
    described = json.loads(text)
    assert described["base_model_name_or_path"] == "" and str(tuned) not in text
    assert (described["r"], described["lora_alpha"], described["lora_dropout"]) == (4, 6.0, 0.1)
    assert sorted(path.name for path in (tuned / "out/model/adapter").iterdir()) == [
        "adapter_config.json",
        "adapter_model.safetensors",
    ]


def test_a_base_that_is_read_again_gives_the_same_sum(tuned):
    """As for a base whose digits were lost to fewer bits."""
    summed = []
    for dtype in (torch.float32, torch.bfloat16):
        model = load_model(tuned / "base", dtype=dtype)
        model = peft.PeftModel.from_pretrained(model, tuned / "out/model/adapter")
        summed.append(adapters.merged(model, tuned / "base").state_dict())
    assert all(summed[0][name].equal(summed[1][name]) for name in summed[0])
