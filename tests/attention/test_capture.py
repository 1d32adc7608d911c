"""Capture equals eager attention and leaves SDPA's output and the model as they were."""

import copy

import pytest
import torch

from adapt.attention.capture import NAME, RowCapture, decoder_of, observed
from adapt.attention.decode import answer, chat_prompts, first_maps
from adapt.attention.layout import image_columns, patch_grid
from adapt.params import InputError
from tests import tiny_world


def batch(side: str = "right") -> dict[str, torch.Tensor]:
    processor = tiny_world.processor()
    prompts = chat_prompts(processor, tiny_world.QUESTIONS)
    texts = [p + a + "</s>" for p, a in zip(prompts, tiny_world.ANSWERS, strict=True)]
    return processor(
        images=[tiny_world.picture(0), tiny_world.picture(1)], text=texts, padding=True, padding_side=side,
        return_tensors="pt", add_special_tokens=False,
    )  # fmt: skip


def eager(model, inputs):
    """Reference: transformers' own eager maps, mean over heads, [B, L, S, S]."""
    decoder_of(model).set_attn_implementation("eager")
    out = model(**inputs, output_attentions=True)
    decoder_of(model).set_attn_implementation("sdpa")
    return torch.stack(out.attentions, 1).mean(2)


@pytest.mark.parametrize("side", ["left", "right"])
def test_rows_equal_eager_and_output_equals_sdpa(side):
    model, inputs = tiny_world.model(), batch(side)
    columns = image_columns(inputs["input_ids"], model.config.image_token_id)
    last = inputs["attention_mask"].shape[1] - 1 - (side == "right") * 8
    rows = torch.stack([torch.arange(last - 3, last)] * 2)
    capture = RowCapture(rows, columns)
    plain = model(**inputs).logits
    with observed(model, capture):
        seen = model(**inputs).logits
    assert torch.equal(plain, seen)
    expected = eager(model, inputs)
    for b in range(2):
        want = expected[b][:, rows[b]][:, :, columns[b]]
        torch.testing.assert_close(capture.stacked()[b], want, atol=1e-6, rtol=1e-5)


def test_gradients_equal_eager():
    model, inputs = tiny_world.model(), batch()
    columns = image_columns(inputs["input_ids"], model.config.image_token_id)
    rows = torch.full((2, 2), 25)
    capture = RowCapture(rows, columns)
    twin = copy.deepcopy(model)
    with observed(model, capture):
        model(**inputs)
    capture.stacked().square().sum().backward()
    eager(twin, inputs)[:, :, [25, 25]][:, :, :, columns[0]].square().sum().backward()
    for (name, p), q in zip(model.named_parameters(), twin.parameters(), strict=True):
        if p.grad is not None:
            torch.testing.assert_close(p.grad, q.grad, atol=1e-6, rtol=1e-4, msg=name)


def test_decode_maps_equal_teacher_forced_eager():
    model, processor = tiny_world.model(), tiny_world.processor()
    images = [tiny_world.picture(0), tiny_world.picture(1)]
    answers = answer(model, processor, images, tiny_world.QUESTIONS, first=3, max_new_tokens=6)
    prompts = processor(images=images, text=chat_prompts(processor, tiny_world.QUESTIONS), padding=True,
                        padding_side="left", return_tensors="pt", add_special_tokens=False)  # fmt: skip
    start = prompts["input_ids"].shape[1]
    prompts["input_ids"] = torch.cat([prompts["input_ids"], answers.tokens_BT], 1)
    prompts["attention_mask"] = torch.cat([prompts["attention_mask"], torch.ones_like(answers.tokens_BT)], 1)
    columns = image_columns(prompts["input_ids"][:, :start], model.config.image_token_id)
    expected = eager(model, prompts)
    for b in range(2):
        want = expected[b][:, start - 1 : -1][:, :, columns[b]].transpose(0, 1)
        torch.testing.assert_close(answers.maps_BTLN[b], want, atol=1e-5, rtol=1e-4)
    assert first_maps(answers, 3).shape == (2, 3, 16)
    assert answers.grid == (4, 4)


def test_model_is_restored_after_an_error_and_nesting_is_refused():
    model = tiny_world.model()
    capture = RowCapture(torch.zeros(1, 1, dtype=torch.long), torch.zeros(1, 1, dtype=torch.long))
    with pytest.raises(RuntimeError, match="already observed"), observed(model, capture), observed(model, capture):
        pass
    assert decoder_of(model).config._attn_implementation == "sdpa" != NAME
    with observed(model, capture):  # the failed attempt left nothing behind
        pass


def test_samples_of_one_prompt_keep_their_columns():
    model, processor = tiny_world.model(), tiny_world.processor()
    images = [tiny_world.picture(0), tiny_world.picture(1)]
    twice = answer(model, processor, images, tiny_world.QUESTIONS, first=2, max_new_tokens=4, samples=2,
                   temperature=1.0, seed=3)  # fmt: skip
    again = answer(model, processor, images, tiny_world.QUESTIONS, first=2, max_new_tokens=4, samples=2,
                   temperature=1.0, seed=3)  # fmt: skip
    assert twice.texts == again.texts
    # The first map depends on the prompt alone: equal within a pair, different between prompts.
    first = twice.maps_BTLN[:, 0]
    torch.testing.assert_close(first[0], first[1])
    assert not torch.allclose(first[0], first[2])


def test_layout_errors_say_why():
    with pytest.raises(InputError, match="sample 1 of the batch has no image tokens"):
        image_columns(torch.tensor([[9, 1], [1, 1]]), 9)
    model = tiny_world.model()
    with pytest.raises(InputError, match="15 image tokens do not form the 4 x 4 grid"):
        patch_grid(model.config, {"pixel_values": torch.zeros(1, 3, 32, 32)}, torch.zeros(1, 15))
