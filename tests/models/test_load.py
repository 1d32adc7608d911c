"""Loading and saving, and prompts: mistakes in one line, and what a saved folder gives back."""

import pytest
import torch

from adapt.models.load import check_source, load_model, load_processor, save
from adapt.models.prompts import chat_prompts, prompt_inputs
from adapt.params import InputError
from tests.support import tiny_world


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
