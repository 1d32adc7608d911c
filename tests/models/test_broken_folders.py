"""Broken and hostile model folders: one line each that names the file, never a traceback."""

import json
import os

import pytest
import torch

from adapt.models import trial
from adapt.models.checkpoint import render
from adapt.models.load import load_config, load_model, load_processor
from adapt.params import InputError
from tests.support import families
from tests.support.breaking import (
    POINTER,
    WEIGHTS,
    cut,
    dropped,
    edited,
    filled,
    first,
    linked,
    mapped,
    more_words,
    piped,
    renamed,
    sharded,
    tensors,
    without,
    written,
)

ADAPTER = {"peft_type": "LORA", "r": 2, "base_model_name_or_path": "someone/llava"}
HEAD = (2**62).to_bytes(8, "little")
NOTHING = json.dumps({}).encode()
QUANTISED = {"quant_method": "bitsandbytes", "load_in_4bit": True}

MODEL = {
    # weights
    "a pointer": (written(WEIGHTS, POINTER), "git-lfs pointer"),
    "half of it": (cut(0.5), f"{WEIGHTS}: not a whole safetensors file"),
    "all but a byte": (cut(0.9999), f"{WEIGHTS}: not a whole safetensors file"),
    "empty": (written(WEIGHTS, b""), "the file is empty"),
    "four bytes": (written(WEIGHTS, b"abcd"), "not a whole safetensors file"),
    "a head of 4 EiB": (written(WEIGHTS, HEAD + b"{}"), "not a whole safetensors file"),
    "no tensor": (written(WEIGHTS, (2).to_bytes(8, "little") + NOTHING), "no tensor in it"),
    "a pickle": (written(WEIGHTS, b"PK\x03\x04" + b"x" * 500), "not a whole safetensors file"),
    "a pipe": (piped(WEIGHTS), f"{WEIGHTS}: not a file"),
    "a link to nothing": (linked(WEIGHTS, "absent"), f"{WEIGHTS}: missing"),
    "a link to itself": (linked(WEIGHTS, WEIGHTS), f"{WEIGHTS}: missing"),
    "a device": (linked(WEIGHTS, "/dev/zero"), f"{WEIGHTS}: not a file"),
    "renamed": (tensors(renamed), "which the model needs; in it, llm_backbone"),
    "one dropped": (tensors(dropped("q_proj.weight")), "no tensor model."),
    "one more": (
        tensors(lambda w: w.update({"extra.bias": torch.zeros(2)})),
        "tensor extra.bias has no place",
    ),
    "another shape": (
        tensors(lambda w: w.update({first(w, "q_proj.weight"): torch.zeros(3, 4)})),
        "is [3, 4], and config.json makes it [32, 32]",
    ),
    "no number": (tensors(filled("up_proj.weight", float("nan"))), "up_proj.weight: 1 of"),
    "infinite": (tensors(filled("norm1.bias", float("inf"))), "norm1.bias: 1 of"),
    "pickled": (
        lambda f: (f / WEIGHTS).rename(f / "pytorch_model.bin"),
        "pytorch_model.bin is pickled",
    ),
    "another name": (
        lambda f: (f / WEIGHTS).rename(f / "consolidated.safetensors"),
        "only consolidated.safetensors",
    ),
    # shards
    "a shard missing": (sharded(lambda _: None, keep=(1,)), "00002-of-00002.safetensors: missing"),
    "an index that is no JSON": (sharded(lambda p: p.write_text("{")), "index.json: not JSON"),
    "an index of nothing": (sharded(lambda p: p.write_text("{}")), "index.json: no metadata"),
    "an index without tensors": (
        sharded(lambda p: p.write_text('{"metadata": {}, "weight_map": {}}')),
        "weight_map is empty",
    ),
    "an index that is a list": (sharded(lambda p: p.write_text("[]")), "expected a JSON object"),
    "a shard outside": (sharded(mapped("../model.safetensors")), "no file of this folder"),
    "an absolute shard": (sharded(mapped("/etc/passwd")), "no file of this folder"),
    "a shard that is a number": (sharded(mapped(7)), "no file of this folder"),
    "a shard in two": (
        sharded(mapped("model-00002-of-00002.safetensors")),
        "says is in it",
    ),
    "both kinds": (
        lambda f: (f / f"{WEIGHTS}.index.json").write_text(
            '{"metadata": {}, "weight_map": {"a": "b.safetensors"}}'
        ),
        "keep the one that is meant",
    ),
    # configuration
    "no JSON": (written("config.json", "{,"), "config.json: not JSON (line 1)"),
    "a list": (written("config.json", "[1]"), "config.json: expected a JSON object"),
    "no text": (written("config.json", b"\xff\xfe\x00"), "config.json: not JSON"),
    "nested": (written("config.json", '{"a":' * 9000 + "1" + "}" * 9000), "config.json: not JSON"),
    "a config pointer": (written("config.json", POINTER), "config.json: a git-lfs pointer"),
    "no type": (edited("config.json", model_type=None), "model_type is missing"),
    "unknown type": (edited("config.json", model_type="new"), "model_type new is unknown"),
    "a type that is a list": (edited("config.json", model_type=[1]), "model_type is missing"),
    "text only": (
        written("config.json", '{"model_type": "llama", "num_hidden_layers": 2}'),
        "a model of type llama takes no pictures",
    ),
    "own code": (
        edited("config.json", model_type="new", auto_map={"AutoModel": "modeling.New"}),
        "needs code of its own (auto_map), which is not run",
    ),
    "quantised": (edited("config.json", quantization_config=QUANTISED), "quantised (bitsandbytes)"),
    "quantised somehow": (edited("config.json", quantization_config="x"), "quantised"),
    "no dtype": (edited("config.json", dtype="float31"), "dtype: float31 is no floating dtype"),
    "whole numbers": (edited("config.json", text_config__dtype="int8"), "int8 is no floating"),
    "a million layers": (
        edited("config.json", text_config__num_hidden_layers=10**6),
        "text_config.num_hidden_layers is 1000000",
    ),
    "one layer more": (
        edited("config.json", text_config__num_hidden_layers=4),
        "model.language_model.layers.3",
    ),
    "one layer less": (edited("config.json", text_config__num_hidden_layers=2), "has no place"),
    "a wide tower": (
        edited("config.json", vision_config__hidden_size=10**9),
        "vision_config.hidden_size is 1000000000",
    ),
    "many words": (edited("config.json", text_config__vocab_size=10**6), "config.json makes it"),
    "no heads": (edited("config.json", text_config__num_attention_heads=0), "config.json"),
    "negative": (edited("config.json", text_config__hidden_size=-32), "config.json"),
    "a word": (edited("config.json", text_config__hidden_size="wide"), "config.json"),
    "no part": (edited("config.json", text_config="none"), "config.json"),
    "unknown part": (edited("config.json", text_config__model_type="new"), "config.json"),
    "unknown function": (edited("config.json", text_config__hidden_act="new"), "config.json"),
    "weights elsewhere": (
        edited("config.json", transformers_weights="../x.safetensors"),
        "transformers_weights",
    ),
    "no end tokens": (written("generation_config.json", "]"), "generation_config.json: not JSON"),
    # adapters
    "an adapter": (
        written("adapter_config.json", json.dumps(ADAPTER)),
        "both model.safetensors and adapter_config.json",
    ),
}

PROCESSOR = {
    "no tokenizer": (without("tokenizer_config.json"), "no processor (tokenizer_config.json)"),
    "no words": (without("tokenizer.json"), "processor"),
    "no pictures": (without("processor_config.json"), "no image processor"),
    "broken words": (written("tokenizer.json", "{"), "tokenizer.json: not JSON"),
    "other words": (written("tokenizer.json", '{"version": "1.0"}'), "processor cannot be loaded"),
    "a pointer": (written("tokenizer.json", POINTER), "tokenizer.json: a git-lfs pointer"),
    "no object": (written("processor_config.json", "3"), "processor_config.json: expected"),
    "a class that is none": (
        edited("processor_config.json", processor_class="Trainer"),
        "processor_class Trainer is none of transformers'",
    ),
    "an unknown class": (edited("processor_config.json", processor_class="Xyz"), "Xyz is none"),
    "unknown pictures": (
        edited("processor_config.json", image_processor__image_processor_type="Xyz"),
        "processor",
    ),
    "huge pictures": (
        edited("processor_config.json", image_processor__size={"height": 10**7, "width": 10**7}),
        "size of pictures: height is 10000000",
    ),
    "a mean that is a word": (
        edited("processor_config.json", image_processor__image_mean="grey"),
        "image processor fails on a picture of 32 x 32",
    ),
    "no template": (written("chat_template.jinja", "{% if %}"), "is no jinja (line 1)"),
    "a template in half": (
        written("chat_template.jinja", "{% for m in messages %}"),
        "is no jinja",
    ),
    "a long text": (
        written("chat_template.jinja", "{% for i in range(99999) %}" + "x" * 99 + "{% endfor %}"),
        "makes more than 1048576 characters",
    ),
    "a template that calls itself": (
        written("chat_template.jinja", "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}"),
        "does not come to an end",
    ),
    "no unknown, end or pad token": (
        edited("tokenizer_config.json", pad_token=None, unk_token=None, eos_token=None),
        "no pad token",
    ),
}
NESTED = "{% for i in range(99999) %}" * 3 + "{% endfor %}" * 3
DOUBLED = (
    "{% set n = namespace(s='x' * 1000) %}"
    "{% for i in range(60) %}{% set n.s = n.s ~ n.s %}{% endfor %}{{ n.s }}"
)


@pytest.mark.parametrize("name", MODEL)
def test_a_broken_model_is_refused(folder, refused, name):
    change, problem = MODEL[name]
    change(folder)
    assert problem in refused(folder, load_model)


@pytest.mark.parametrize("name", PROCESSOR)
def test_a_broken_processor_is_refused(folder, refused, name):
    change, problem = PROCESSOR[name]
    change(folder)
    assert problem in refused(folder, load_processor)


@pytest.mark.parametrize("template", [NESTED, DOUBLED], ids=["loops", "doubles"])
def test_a_template_without_end_is_refused(folder, monkeypatch, template):
    monkeypatch.setattr(render, "SECONDS", 0.5)
    (folder / "chat_template.jinja").write_text(template)
    with pytest.raises(InputError, match="does not come to an end"):
        load_processor(folder)


def test_a_file_is_no_folder(folder):
    for load in (load_model, load_processor, load_config):
        with pytest.raises(InputError, match="a file; name the folder"):
            load(folder / WEIGHTS)


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
@pytest.mark.parametrize("name", [WEIGHTS, "config.json", "tokenizer_config.json"])
def test_what_may_not_be_read_is_named(folder, name):
    (folder / name).chmod(0)
    with pytest.raises(InputError, match=f"{name}: Permission denied"):
        load_model(folder)
        load_processor(folder)


# ---- a model and another's processor -----------------------------------------------------------


STRANGERS = {
    "another size": (
        edited("processor_config.json", image_processor__size={"height": 64, "width": 64}),
        "the model does not take what its processor makes",
    ),
    "another patch": (edited("processor_config.json", patch_size=4), "does not take what"),
    "no patch": (edited("processor_config.json", patch_size=0), "cannot prepare a question"),
    "a patch in words": (edited("processor_config.json", patch_size="x"), "cannot prepare"),
    "too many tokens": (
        edited("processor_config.json", num_additional_image_tokens=10**12),
        "cannot prepare a question",
    ),
    "another sign": (edited("processor_config.json", image_token="<unk>"), "its"),
    "another vocabulary": (more_words, "tokenizer makes token 1000000"),
    "negative heads": (
        edited("config.json", vision_config__num_attention_heads=-1),
        "the model does not take what its processor makes",
    ),
}


@pytest.mark.parametrize("name", STRANGERS)
def test_a_model_and_a_stranger_are_refused(folder, refused, name):
    def together(folder):
        trial.check_together(load_model(folder), load_processor(folder), folder)

    change, problem = STRANGERS[name]
    change(folder)
    assert problem in refused(folder, together)


@pytest.mark.parametrize("name", families.CASES)
def test_a_model_and_its_own_processor_go_together(name):
    trial.check_together(*families.built(name), name)
