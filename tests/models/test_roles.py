"""What is tower, projector and decoder: by hand for every family."""

import pytest
import torch
import transformers
from peft import LoraConfig, get_peft_model

from adapt.models.roles import ROLES, linear_layers, role_of_parameters
from adapt.params import InputError
from tests.support import builders, families

# The start of every name that is the decoder's, the tower's, the projector's.
DECODER = ("model.language_model.", "lm_head.")
LLAVA = {"tower": ("model.vision_tower.",), "projector": ("model.multi_modal_projector.",)}
NEWLINE = {**LLAVA, "projector": ("model.multi_modal_projector.", "model.image_newline")}
IDEFICS = {"tower": ("model.vision_model.",), "projector": ("model.connector.",)}
QWEN = {
    "tower": ("model.visual.patch_embed.", "model.visual.blocks."),
    "projector": ("model.visual.merger.",),
}
GLM_TOWER = ("patch_embed.", "blocks.", "embeddings.", "post_conv_layernorm.", "post_layernorm.")
EXPECTED = {
    "llava": LLAVA,
    "pixtral": LLAVA,
    "llava_next": NEWLINE,
    "llava_onevision": NEWLINE,
    "qwen2_vl": QWEN,
    "qwen2_5_vl": QWEN,
    "qwen3_vl": {
        "tower": (*QWEN["tower"], "model.visual.pos_embed."),
        "projector": ("model.visual.merger.", "model.visual.deepstack_merger_list."),
    },
    # The convolution that makes one of four patches maps them to the decoder's width.
    "glm4v": {
        "tower": tuple(f"model.visual.{part}" for part in GLM_TOWER),
        "projector": ("model.visual.merger.", "model.visual.downsample."),
    },
    "mistral3": LLAVA,
    "idefics3": {**IDEFICS, "decoder": ("model.text_model.", "lm_head.")},
    "smolvlm": {**IDEFICS, "decoder": ("model.text_model.", "lm_head.")},
    "internvl": LLAVA,
    "gemma3": LLAVA,
    "paligemma": LLAVA,
}
# Linear layers of the decoder's blocks, of which every tiny decoder has two.
ATTENTION = [f"self_attn.{part}" for part in ("q_proj", "k_proj", "v_proj", "o_proj")]
MLP = [f"mlp.{part}" for part in ("gate_proj", "up_proj", "down_proj")]
GLM_MLP = ["mlp.gate_up_proj", "mlp.down_proj"]


def test_the_roles_of_every_family_are_written_down_here():
    assert list(EXPECTED) == list(families.CASES)


@pytest.mark.parametrize("name", EXPECTED)
def test_every_parameter_has_the_role_of_its_module(name):
    model, starts = families.built(name)[0], {"decoder": DECODER, **EXPECTED[name]}
    roles = role_of_parameters(model)
    assert set(roles) == {k for k, _ in model.named_parameters(remove_duplicate=False)}
    for parameter, role in roles.items():
        by_hand = [r for r in ROLES if parameter.startswith(starts[r])]
        assert by_hand == [role], parameter
    assert set(roles.values()) == set(ROLES)


@pytest.mark.parametrize("name", EXPECTED)
def test_lora_finds_all_linear_layers_of_the_decoder_but_the_last(name):
    model, inner = families.built(name)[0], EXPECTED[name].get("decoder", DECODER)[0]
    parts = ATTENTION + (GLM_MLP if name == "glm4v" else MLP)
    expected = {f"{inner}layers.{i}.{part}" for i in range(2) for part in parts}
    assert set(linear_layers(model, "decoder")) == expected
    for role in ("tower", "projector"):
        for layer in linear_layers(model, role):
            assert layer.startswith(EXPECTED[name][role]), layer


def test_a_pooling_head_is_tower_and_its_attention_takes_no_adapter():
    words = builders.tokenizer()
    config = transformers.PaliGemmaConfig(
        vision_config=builders.tower_config(transformers.SiglipVisionConfig, 16, 4),
        text_config=builders.text_config(transformers.GemmaConfig, words, head_dim=8),
        projection_dim=builders.WIDTH,
        hidden_size=builders.WIDTH,
    )
    model = transformers.PaliGemmaForConditionalGeneration(config)
    head = {k: r for k, r in role_of_parameters(model).items() if ".vision_tower.head." in k}
    assert head and set(head.values()) == {"tower"}
    layers = [name for name in linear_layers(model, "tower") if ".head." in name]
    assert layers == [f"model.vision_tower.head.mlp.{fc}" for fc in ("fc1", "fc2")]


def test_roles_are_found_under_an_adapter():
    model = builders.qwen2_5_vl()[0]
    adapted = get_peft_model(model, LoraConfig(target_modules=linear_layers(model, "decoder")))
    roles = role_of_parameters(adapted)
    assert {roles[k] for k in roles if "lora_" in k} == {"decoder"}
    assert roles["base_model.model.model.visual.merger.mlp.0.weight"] == "projector"


def test_a_model_without_a_tower_is_refused_in_words():
    config = builders.text_config(transformers.LlamaConfig, builders.tokenizer())
    with torch.device("meta"), pytest.raises(InputError, match="no vision tower"):
        role_of_parameters(transformers.LlamaForCausalLM(config))
