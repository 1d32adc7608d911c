"""Capture equals eager attention and leaves SDPA's output and the model as they were."""

import copy
import threading

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from adapt.attention import rows as rows_module
from adapt.attention.capture import NAME, RowCapture, decoder_of, observed
from adapt.attention.layout import image_columns, layout_by
from adapt.generation.answer import Decoding, answer, first_maps
from adapt.models.prompts import chat_prompts, prompt_inputs
from adapt.params import InputError
from tests.support import tiny_world


def batch(side: str = "right") -> dict[str, torch.Tensor]:
    processor = tiny_world.processor()
    prompts = chat_prompts(processor, tiny_world.QUESTIONS, [1, 1])
    texts = [p + a + "</s>" for p, a in zip(prompts, tiny_world.ANSWERS, strict=True)]
    return processor(
        images=[tiny_world.picture(0), tiny_world.picture(1)],
        text=texts,
        padding=True,
        padding_side=side,
        return_tensors="pt",
        add_special_tokens=False,
    )


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
    images = [[tiny_world.picture(0)], [tiny_world.picture(1)]]
    decoding = Decoding(anchor_tokens=6, max_new_tokens=6)
    answers = answer(model, processor, images, tiny_world.QUESTIONS, decoding)
    prompts = prompt_inputs(model, processor, images, tiny_world.QUESTIONS)
    start = prompts["input_ids"].shape[1]
    prompts["input_ids"] = torch.cat([prompts["input_ids"], answers.tokens_BT], 1)
    prompts["attention_mask"] = torch.cat(
        [prompts["attention_mask"], torch.ones_like(answers.tokens_BT)], 1
    )
    columns = image_columns(prompts["input_ids"][:, :start], model.config.image_token_id)
    expected = eager(model, prompts)
    for b in range(2):
        want = expected[b][:, start - 1 : -1][:, :, columns[b]].transpose(0, 1)
        torch.testing.assert_close(answers.first_BKLN[b], want, atol=1e-5, rtol=1e-4)
    assert first_maps(answers, 3).shape == (2, 3, 16)
    assert [view.grid for view in answers.layout.views] == [(4, 4)] * 2


def watch(model, inputs, layers="all"):
    """A capture of three rows of a batch, and the columns of its images."""
    columns = image_columns(inputs["input_ids"], model.config.image_token_id)
    return RowCapture(torch.tensor([[20, 22, -1]] * len(columns)), columns, layers)


def implementations(model):
    return [part.config._attn_implementation for part in model.modules() if hasattr(part, "config")]


def test_model_is_restored_after_an_error_and_nesting_is_refused():
    model, inputs = tiny_world.model(), batch()
    before, capture = implementations(model), watch(model, inputs)
    with (
        pytest.raises(RuntimeError, match="already observed"),
        observed(model, capture),
        observed(model, capture),
    ):
        pass
    assert implementations(model) == before and NAME not in before
    with pytest.raises(ZeroDivisionError), observed(model, capture):
        model(**inputs)
        raise ZeroDivisionError
    assert implementations(model) == before
    with observed(model, watch(model, inputs)):  # the failed attempts left nothing behind
        model(**inputs)


def test_parts_with_implementations_of_their_own_get_them_back():
    model = tiny_world.model()
    decoder_of(model).set_attn_implementation("eager")
    before = implementations(model)
    with observed(model, watch(model, batch())):
        assert decoder_of(model).config._attn_implementation == NAME
    assert implementations(model) == before and "eager" in before and "sdpa" in before


def test_a_model_that_shares_its_configuration_with_an_observed_one_is_refused():
    model, twin = tiny_world.model(0), tiny_world.model(1)
    for part in twin.modules():
        if getattr(part, "config", None) is decoder_of(twin).config:
            part.config = decoder_of(model).config
    capture = watch(model, batch())
    with (
        observed(model, capture),
        pytest.raises(RuntimeError, match="already observed"),
        observed(twin, capture),
    ):
        pass


def test_two_models_at_once_in_one_thread_and_in_two():
    inputs, models = batch(), [tiny_world.model(0), tiny_world.model(1)]
    captures = [watch(model, inputs) for model in models]
    with observed(models[0], captures[0]), observed(models[1], captures[1]):
        for model in models:
            model(**inputs)

    def alone(model, capture):
        for _ in range(5):
            capture.maps.clear()
            with observed(model, capture):
                model(**inputs)

    again = [watch(model, inputs) for model in models]
    threads = [
        threading.Thread(target=alone, args=pair) for pair in zip(models, again, strict=True)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for one, two in zip(captures, again, strict=True):
        torch.testing.assert_close(one.stacked(), two.stacked(), atol=1e-6, rtol=1e-5)
    assert not torch.allclose(captures[0].stacked(), captures[1].stacked())


def test_another_thread_is_not_observed_and_cannot_observe():
    model, inputs = tiny_world.model(), batch()
    plain, capture, seen = model(**inputs).logits, watch(model, inputs), []

    def other():
        seen.append(model(**inputs).logits)
        with (
            pytest.raises(RuntimeError, match="already observed"),
            observed(model, watch(model, inputs)),
        ):
            pass

    with observed(model, capture):
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
        assert not capture.maps
    assert torch.equal(seen[0], plain)
    with pytest.raises(InputError, match="in the thread that entered it"):
        capture.stacked()


@pytest.mark.parametrize("inside", [True, False], ids=["backward inside", "backward outside"])
def test_gradient_checkpointing_gives_the_same_gradients(inside):
    model, inputs = tiny_world.model().train(), batch()
    twin = copy.deepcopy(model)
    twin.activation_checkpointing_enable(activation_checkpointing_kwargs={"use_reentrant": False})
    for each in (model, twin):
        capture = watch(each, inputs)
        with observed(each, capture):
            loss = each(**inputs).logits.square().mean() + capture.stacked().square().sum()
            maps = capture.stacked().detach().clone()
            if inside:
                loss.backward()
        if not inside:
            loss.backward()
        assert torch.equal(capture.stacked(), maps), (
            "the second computation of a layer changes nothing"
        )
    checked = 0
    for (name, p), q in zip(model.named_parameters(), twin.parameters(), strict=True):
        assert (p.grad is None) == (q.grad is None), name
        if p.grad is not None:
            torch.testing.assert_close(p.grad, q.grad, atol=1e-6, rtol=1e-4, msg=name)
            checked += "k_proj" in name and bool(p.grad.abs().max() > 0)
    assert checked, "keys have a gradient"


def test_reentrant_checkpointing_and_a_second_pass_are_refused():
    model, inputs = tiny_world.model().train(), batch()
    model.activation_checkpointing_enable(activation_checkpointing_kwargs={"use_reentrant": True})
    with pytest.raises(InputError, match="use_reentrant"), observed(model, watch(model, inputs)):
        pass
    assert NAME not in implementations(model)
    with observed(model.eval(), watch(model, inputs)):  # in evaluation mode nothing is checkpointed
        model(**inputs)
        with pytest.raises(InputError, match="a new one for each pass"):
            model(**inputs)


def test_the_reference_pass_is_not_looked_at_and_rows_may_be_none():
    model, inputs = tiny_world.model(), batch()
    capture = watch(model, inputs, layers=(1,))
    with observed(model, capture):
        model(**inputs)
        with torch.no_grad():
            model(**inputs)
    assert capture.stacked().shape == (2, 1, 3, 16) and capture.stacked()[:, :, 2].eq(0).all()
    none = RowCapture(torch.zeros(2, 0, dtype=torch.long), capture.columns_BN)
    with observed(model, none):
        model(**inputs)
    none.stacked().sum().backward()
    assert none.stacked().shape == (2, 3, 0, 16)


def test_half_precision_equals_its_float64_softmax():
    model, inputs = tiny_world.model().to(torch.bfloat16), batch()
    inputs["pixel_values"] = inputs["pixel_values"].bfloat16()
    capture = watch(model, inputs)
    with observed(model, capture), torch.autocast("cpu", torch.bfloat16):
        model(**inputs)
    want = eager(model, inputs)[0][:, [20, 22]][:, :, capture.columns_BN[0]]
    torch.testing.assert_close(
        capture.stacked()[0, :, :2].to(torch.bfloat16), want, atol=0.03, rtol=0.1
    )
    capture.stacked().square().sum().backward()
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)


class Largest(TorchDispatchMode):
    """The largest tensor, in elements, that any operation inside the block gives back."""

    def __init__(self):
        super().__init__()
        self.numel = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        self.numel = max(
            [self.numel, *(t.numel() for t in tree_leaves(out) if isinstance(t, torch.Tensor))]
        )
        return out


def test_memory_is_bounded_and_linear_in_the_sequence(monkeypatch):
    monkeypatch.setattr(rows_module, "CHUNK", 1000)
    largest = []
    for S in (200, 400, 800):
        query, key = (
            torch.randn(1, heads, n, 4, requires_grad=True) for heads, n in ((8, 50), (2, S))
        )
        rows, columns = torch.arange(S - 50, S)[None], torch.arange(10)[None]
        with Largest() as seen:
            rows_module.attention_at(query, key, None, rows, columns, 0.5).sum().backward()
        largest.append(seen.numel)
    assert largest == [8 * 200, 8 * 400, 8 * 800], (
        "one row of all heads; 50 rows would be 50 times as much"
    )


def test_samples_of_one_prompt_keep_their_columns():
    model, processor = tiny_world.model(), tiny_world.processor()
    images = [[tiny_world.picture(0)], [tiny_world.picture(1)]]
    decoding = Decoding(anchor_tokens=2, max_new_tokens=4, samples=2, temperature=1.0, seed=3)
    twice, again = (
        answer(model, processor, images, tiny_world.QUESTIONS, decoding) for _ in range(2)
    )
    assert twice.texts == again.texts
    # The first map depends on the prompt alone: equal within a pair, different between prompts.
    first = twice.first_BKLN[:, 0]
    torch.testing.assert_close(first[0], first[1])
    assert not torch.allclose(first[0], first[2])


def test_layout_errors_say_why():
    with pytest.raises(InputError, match="sample 1 of the batch has no image tokens"):
        image_columns(torch.tensor([[9, 1], [1, 1]]), 9)
    model = tiny_world.model()
    with pytest.raises(InputError, match="15 image tokens do not form the 4 x 4 grid"):
        ids = torch.full((1, 15), model.config.image_token_id)
        layout_by(model.config, {"input_ids": ids, "pixel_values": torch.zeros(1, 3, 32, 32)})
