"""Loading and saving, and prompts: mistakes in one line, and what a saved folder gives back."""

import pytest
import torch
from safetensors.torch import load_file, save_file

from adapt.models.load import (
    check_source,
    checkpoint_dtype,
    load_config,
    load_model,
    load_processor,
    save,
)
from adapt.models.prompts import chat_prompts, prompt_inputs
from adapt.params import InputError
from tests.support import families, tiny_world
from tests.support.breaking import WEIGHTS, sharded


def test_a_saved_model_is_the_one_that_is_loaded(tmp_path):
    model, processor = tiny_world.model(), tiny_world.processor()
    processor.tokenizer(["a", "a red car"], padding=True)  # padding that must not be saved
    save(model, processor, tmp_path)
    loaded, again = load_model(tmp_path), load_processor(tmp_path)
    assert not loaded.training and loaded.config._attn_implementation == "sdpa"
    for name, weight in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], weight), name
    assert again.tokenizer(["a", "a red car"])["input_ids"][0] == processor.tokenizer("a").input_ids


@pytest.mark.parametrize("source", ["missing", "./missing", "~/missing", "a/b/c"])
def test_what_is_no_folder_and_no_hub_id_is_refused(source):
    with pytest.raises(InputError, match="no such folder, and not a hub id"):
        check_source(source)
    check_source("owner/name")


def test_what_a_folder_lacks_is_named(tmp_path):
    with pytest.raises(InputError, match=r"no model here \(config\.json is missing\)"):
        load_model(tmp_path)
    with pytest.raises(InputError, match=r"no processor \(tokenizer_config\.json\)"):
        load_processor(tmp_path)
    tiny_world.model().config.save_pretrained(tmp_path)
    with pytest.raises(InputError, match=r"no weights \(\*\.safetensors\) in this folder"):
        load_model(tmp_path)


def test_prompts_hold_the_image_the_question_and_the_place_of_the_answer():
    processor, images = tiny_world.processor(), [[tiny_world.picture(0)], [tiny_world.picture(1)]]
    first, _ = chat_prompts(processor, tiny_world.QUESTIONS, [1, 1])
    assert first == "<s><user><image>describe the picture.<assistant>"
    model = tiny_world.model()
    inputs = prompt_inputs(model, processor, images, tiny_world.QUESTIONS)
    ids, mask = inputs["input_ids"], inputs["attention_mask"]
    assert (ids == model.config.image_token_id).sum(1).tolist() == [16, 16]
    assert mask[:, -1].all() and not mask.all(), "padded on the left"


# ---- what is whole -----------------------------------------------------------------------------


def same(found, expected):
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], weight) for name, weight in expected.items())


@pytest.mark.parametrize("name", families.CASES)
def test_every_family_is_loaded_as_it_was_saved(tmp_path, name):
    model, processor = families.built(name)
    save(model, processor, tmp_path)
    same(load_model(tmp_path).state_dict(), model.state_dict())


def test_shards_and_older_names_are_loaded(whole, folder):
    expected = load_model(whole).state_dict()
    sharded(lambda _: None)(folder)
    same(load_model(folder).state_dict(), expected)
    # As LLaVA's checkpoints were named before, with a buffer that is no weight any more.
    old = load_file(whole / WEIGHTS)
    assert any(name.startswith("language_model.model.") for name in old)
    new = {name: weight for name, weight in expected.items() if name != "lm_head.weight"}
    new["model.vision_tower.embeddings.position_ids"] = torch.arange(17)[None]
    (folder / f"{WEIGHTS}.index.json").unlink()
    save_file({name: weight.clone() for name, weight in new.items()}, folder / WEIGHTS)
    same(load_model(folder).state_dict(), expected)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_the_dtype_of_a_checkpoint_is_kept_or_named(whole, tmp_path, dtype):
    model = load_model(whole)
    save(model, load_processor(whole), tmp_path / "half", dtype)
    assert model.dtype == torch.float32, "the model itself is as it was"
    assert checkpoint_dtype(tmp_path / "half") == dtype
    config = load_config(tmp_path / "half")
    assert config.dtype == config.text_config.dtype == config.vision_config.dtype == dtype
    half, single = load_model(tmp_path / "half", dtype=None), load_model(tmp_path / "half")
    assert half.dtype == dtype and single.dtype == torch.float32
    same(single.to(dtype).state_dict(), half.state_dict())
    save(half, load_processor(whole), tmp_path / "again")
    assert checkpoint_dtype(tmp_path / "again") == dtype
