"""Decoding: windows and caches of any kind, tokens equal to plain `generate`, what is refused."""

import pytest
import torch
from transformers import Gemma3ForCausalLM, Gemma3TextConfig

from adapt.attention.anchor import visual_anchor
from adapt.attention.bias import ImageBias
from adapt.attention.capture import Call, observed
from adapt.attention.layout import Layout, View, layout_of
from adapt.attention.rows import Columns, last_row
from adapt.generation.answer import Decoding, answer, first_maps
from adapt.generation.settings import SteerConfig
from adapt.generation.steer import DecodeObserver
from adapt.models.prompts import encode, prompt_inputs
from adapt.params import InputError
from tests.support import tiny_world
from tests.support.anchored import answer_anchors

IMAGES = [[tiny_world.picture(0)], [tiny_world.picture(1)]]
STEER = SteerConfig(alpha=0.5, tau=0.9, trigger="amc", anchor_share=1.0, layers="all")


def answers(model=None, **options):
    decoding = Decoding(**{"anchor_tokens": 3, "max_new_tokens": 12, **options})
    model, processor = model or tiny_world.model(), tiny_world.processor()
    return answer(model, processor, IMAGES, tiny_world.QUESTIONS, decoding)


def windowed(window: int) -> Gemma3ForCausalLM:
    """A decoder with grouped queries whose first layer sees `window` tokens, the second all."""
    config = Gemma3TextConfig(
        vocab_size=50,
        hidden_size=32,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        sliding_window=window,
        max_position_embeddings=64,
        layer_types=["sliding_attention", "full_attention"],
        query_pre_attn_scalar=1,
    )
    torch.manual_seed(0)
    return Gemma3ForCausalLM(config).eval()


def prompt(padded: bool) -> tuple[dict[str, torch.Tensor], Layout]:
    """Twelve tokens, 3 to 6 an image of 2 x 2 patches; the second sample may be padded by two."""
    torch.manual_seed(1)
    mask = torch.ones(2, 12, dtype=torch.long)
    mask[1, : 2 * padded] = 0
    views = tuple(View(b, 0, "whole", (2, 2), (3, 4, 5, 6)) for b in range(2))
    inputs = {"input_ids": torch.randint(3, 50, (2, 12)), "attention_mask": mask}
    return inputs, Layout(torch.tensor([[3, 4, 5, 6]] * 2), views)


def generate(model, inputs, observer=None, **options):
    fixed = {"max_new_tokens": 8, "do_sample": False, "eos_token_id": None, "pad_token_id": 0}
    options = fixed | options
    if observer is None:
        return model.generate(**inputs, **options)
    with observed(model, observer):
        return model.generate(**inputs, **options)


@pytest.mark.parametrize("cache", ["dynamic", "static"])
@pytest.mark.parametrize("padded", [False, True], ids=["even", "padded"])
@pytest.mark.parametrize("window", [6, 32])
def test_windows_and_caches_equal_eager(window, padded, cache):
    model, (inputs, layout) = windowed(window), prompt(padded)
    observer = DecodeObserver(layout, anchor_tokens=8)
    tokens = generate(model, inputs, observer, cache_implementation=cache)
    assert torch.equal(tokens, generate(model, inputs, cache_implementation=cache))
    model.set_attn_implementation("eager")
    mask = torch.cat([inputs["attention_mask"], torch.ones(2, 8, dtype=torch.long)], 1)
    out = model(tokens, attention_mask=mask, output_attentions=True, use_cache=False)
    rows = torch.stack(out.attentions, 1).mean(2)[:, :, 11:-1].transpose(1, 2)
    seen = observer.attention(torch.ones(2, 8, dtype=torch.bool))
    maps, close = seen.first_BKLN, {"atol": 1e-5, "rtol": 1e-4}
    torch.testing.assert_close(maps, rows[..., 3:7], **close)
    torch.testing.assert_close(seen.prelim_BTL, rows[..., 12:].sum(-1), **close)
    if window == 6:
        assert seen.prelim_BTL[:, 6:, 0].gt(1 - 1e-5).all(), "there is nothing else in the window"
        assert maps[:, 5:, 0].eq(0).all(), "the image has left the window of the first layer"
        assert maps[:, :, 1].gt(0).all()


@pytest.mark.parametrize("kind", ["none", "bool", "float"])
def test_the_bias_is_added_before_the_softmax(kind):
    torch.manual_seed(0)
    query, key, value = (torch.randn(2, heads, n, 8) for heads, n in ((4, 1), (2, 9), (2, 9)))
    allowed = torch.ones(2, 1, 1, 9, dtype=torch.bool)
    allowed[1, ..., :2] = kind == "none"
    masks = {
        "none": None,
        "bool": allowed,
        "float": torch.zeros(2, 1, 1, 9).masked_fill(~allowed, -torch.inf),
    }
    layer = torch.nn.Module()
    layer.layer_idx, layer.num_key_value_groups, layer.is_causal = 0, 2, True
    call = Call(layer, query, key, value, masks[kind], 0.5, {})
    columns = torch.tensor([[1, 4, -1], [3, 5, 7]])
    bias, on = ImageBias(torch.tensor([[1.0, -2.0, 5.0]] * 2), columns), torch.tensor([1.0, 0.0])
    logits = query @ key.repeat_interleave(2, 1).transpose(2, 3) * 0.5
    logits = logits.masked_fill(~allowed, -torch.inf)
    logits[0, :, 0, [1, 4]] += torch.tensor([1.0, -2.0])
    want = logits.softmax(-1)
    out = call.attend(bias.mask(call, on))
    torch.testing.assert_close(
        out.transpose(1, 2), want @ value.repeat_interleave(2, 1), atol=1e-5, rtol=1e-5
    )
    p_BHS = last_row(query, key, masks[kind], 0.5)
    p_BHN, own_BH = Columns(columns).of(p_BHS), p_BHS[:, :, 8:].sum(-1)
    after, own = (each[0] for each in bias.reweighted(p_BHN[None], own_BH[None], on[None]))
    torch.testing.assert_close(own, want[:, :, 0, 8:].sum(-1).mean(1), atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(after[0, :2], want[0, :, 0, [1, 4]].mean(0), atol=1e-6, rtol=1e-5)
    assert torch.equal(after[1], p_BHN[1].mean(0)) and after[0, 2] == 0, (
        "without a bias nothing changes"
    )


def test_tokens_are_those_of_plain_generate_when_nothing_is_steered():
    model = tiny_world.model()
    inputs = prompt_inputs(model, tiny_world.processor(), IMAGES, tiny_world.QUESTIONS)
    plain = model.generate(**inputs, max_new_tokens=24)[:, inputs["input_ids"].shape[1] :]
    sampling = {"samples": 3, "temperature": 1.0, "seed": 4}
    watched = answers(model, max_new_tokens=24, **sampling)
    for steer in (
        None,
        SteerConfig(alpha=0.0, tau=0.9, trigger="amc", anchor_share=1.0, layers="all"),
        SteerConfig(alpha=0.5, tau=0.0, trigger="amc", anchor_share=1.0, layers="all"),
    ):
        assert torch.equal(answers(model, max_new_tokens=24, steer=steer).tokens_BT, plain)
        sampled = answers(model, max_new_tokens=24, steer=steer, **sampling)
        assert torch.equal(sampled.tokens_BT, watched.tokens_BT)


def test_answers_that_stop_early_and_other_prompts_do_not_change_an_answer():
    model = tiny_world.model()
    sampled = answers(model, samples=4, temperature=1.0, steer=STEER, max_new_tokens=40)
    lengths = sampled.mask_BT.sum(1)
    assert lengths.min() < lengths.max() and sampled.first_BKLN.isfinite().all()
    both = answers(model, steer=STEER)
    for b in range(2):
        pair = IMAGES[b : b + 1], tiny_world.QUESTIONS[b : b + 1]
        decoding = Decoding(anchor_tokens=3, max_new_tokens=12, steer=STEER)
        alone = answer(model, tiny_world.processor(), *pair, decoding)
        n = int(alone.mask_BT.sum())
        assert torch.equal(both.tokens_BT[b, :n], alone.tokens_BT[0, :n])
        assert torch.equal(both.fired_BTL[b, :n], alone.fired_BTL[0, :n])


def test_beams_assistants_and_chunks_are_refused():
    model, (inputs, layout) = windowed(32), prompt(False)
    for options, why in (
        ({"num_beams": 3}, "6 rows where 2 answers are expected"),
        ({"prompt_lookup_num_tokens": 3, "batch": 1}, "a step of"),
        ({"assistant_model": windowed(32), "batch": 1}, "a step of"),
        ({"use_cache": False}, "a step of 13 tokens"),
    ):
        batch = options.pop("batch", 2)
        part = {key: value[:batch] for key, value in inputs.items()}
        observer = DecodeObserver(
            Layout(layout.columns_BN[:batch], layout.views[:batch]), anchor_tokens=1, steer=STEER
        )
        with pytest.raises(InputError, match=why):
            generate(model, part, observer, **options)
        assert model.config._attn_implementation == "sdpa"


def test_anchors_of_answers_use_the_masks_by_grid():
    sampled, mask = answers(samples=2, temperature=1.0), torch.linspace(0.5, 1, 16)
    want = visual_anchor(first_maps(sampled, 3), (4, 4), mask)
    assert torch.equal(answer_anchors(sampled, 3, {(4, 4): mask}), want)
    assert torch.equal(answer_anchors(sampled, 3, {(4, 4): mask, (2, 2): torch.ones(4)}), want)
    with pytest.raises(InputError, match="no debias mask for the grid 4 x 4"):
        answer_anchors(sampled, 3, {(2, 2): torch.ones(4)})


def test_a_batch_without_an_image_is_refused():
    model, processor = tiny_world.model(), tiny_world.processor()
    inputs = prompt_inputs(model, processor, IMAGES, tiny_world.QUESTIONS)
    inputs["input_ids"][1][inputs["input_ids"][1] == model.config.image_token_id] = 1
    with pytest.raises(InputError, match="sample 1"):
        layout_of(model, inputs)


def test_an_answer_ends_where_the_model_has_no_more_positions(monkeypatch):
    model, processor = tiny_world.model(), tiny_world.processor()
    config = model.config.get_text_config(decoder=True)
    lengths = encode(processor, IMAGES, tiny_world.QUESTIONS)["attention_mask"].sum(1).tolist()
    assert lengths[0] != lengths[1]
    monkeypatch.setattr(config, "max_position_embeddings", max(lengths) + 2)
    said = answers(model).mask_BT.sum(1).tolist()
    assert said == [min(12, max(lengths) + 2 - length) for length in lengths]
    monkeypatch.setattr(config, "max_position_embeddings", max(lengths))
    longest = lengths.index(max(lengths))
    why = f"question {longest}: the prompt has {max(lengths)} tokens, the model has {max(lengths)}"
    with pytest.raises(InputError, match=why):
        answers(model)
