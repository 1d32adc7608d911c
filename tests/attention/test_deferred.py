"""Attention that is computed for several steps at once is that of each step, as eager gives it."""

import pytest
import torch

from adapt.attention import trace
from adapt.attention.deferred import _together
from adapt.attention.rows import over_keys
from adapt.attention.signals import entropy, normalised
from adapt.generation.steer import DecodeObserver
from tests.generation.test_answer import generate, prompt, windowed

STEPS = 40  # more than one block, and more than the small window holds


class Reader:
    """Reads the trace in the middle of some steps, as whoever follows an answer does."""

    def __init__(self, observer: DecodeObserver, steps: tuple[int, ...], start: int) -> None:
        self.observer, self.steps, self.start = observer, steps, start

    def __call__(self, input_ids: torch.Tensor, scores: object, **_: object) -> torch.Tensor:
        step = input_ids.shape[1] - self.start
        if step in self.steps:
            self.observer.trace.upto(torch.ones(2, step, dtype=torch.bool))
        return torch.zeros(2, dtype=torch.bool)


@pytest.mark.parametrize("cache", ["dynamic", "static"])
@pytest.mark.parametrize("padded", [False, True], ids=["even", "padded"])
@pytest.mark.parametrize("window", [6, 12, 13, 14, 64])
@pytest.mark.parametrize("most", [1, 3, 32])
def test_long_answers_equal_eager(most, window, padded, cache, monkeypatch):
    model, (inputs, layout) = windowed(window), prompt(padded)
    rows = 2 * 2 * 4 + 3 * 2 * 4 * 12
    monkeypatch.setattr(trace, "IN_FLIGHT", most * rows)
    observer = DecodeObserver(layout, anchor_tokens=5)
    reader = Reader(observer, (2, 7, 8, 33), start=12)
    options = {"max_new_tokens": STEPS, "cache_implementation": cache}
    tokens = generate(model, inputs, observer, stopping_criteria=[reader], **options)
    model.set_attn_implementation("eager")
    mask = torch.cat([inputs["attention_mask"], torch.ones(2, STEPS, dtype=torch.long)], 1)
    out = model(tokens, attention_mask=mask, output_attentions=True, use_cache=False)
    maps_BTLS = torch.stack(out.attentions, 1).mean(2)[:, :, 11:-1].transpose(1, 2)
    seen = observer.attention(torch.ones(2, STEPS, dtype=torch.bool))
    image_BTLN, close = maps_BTLS[..., 3:7], {"atol": 1e-5, "rtol": 1e-4}
    torch.testing.assert_close(seen.first_BKLN, image_BTLN[:, :5], **close)
    torch.testing.assert_close(seen.heat_BTN, image_BTLN.mean(2), **close)
    torch.testing.assert_close(seen.mass_BTL, image_BTLN.sum(-1), **close)
    torch.testing.assert_close(seen.prelim_BTL, maps_BTLS[..., 12:].sum(-1), **close)
    # The entropy of nothing but rounding says nothing.
    visible_BTL = image_BTLN.sum(-1) > 1e-4
    want_BTL = entropy(normalised(image_BTLN))
    torch.testing.assert_close(seen.entropy_BTL[visible_BTL], want_BTL[visible_BTL], **close)


@pytest.mark.parametrize("kind", ["none", "bool", "float", "mixed"])
def test_the_mask_of_some_steps(kind):
    torch.manual_seed(0)
    S, n = 9, 3
    query, keys = torch.randn(2, 4, n, 8), torch.randn(2, 2, S, 8)
    masks = []
    for step in range(n):
        allowed = torch.rand(2, 1, 1, S - n + 1 + step) > 0.3
        allowed[..., 0] = True
        as_float = torch.zeros(allowed.shape).masked_fill(~allowed, -torch.inf)
        given = {
            "none": None,
            "bool": allowed,
            "float": as_float,
            "mixed": [None, allowed][step % 2],
        }
        masks.append(given[kind])
    together = over_keys(query, keys, _together(masks, keys), 0.3)
    for step, mask in enumerate(masks):
        until = S - n + 1 + step
        alone = over_keys(query[:, :, step : step + 1], keys[:, :, :until], mask, 0.3)
        torch.testing.assert_close(together[:, :, step, :until], alone[:, :, 0])
        assert not together[:, :, step, until:].any()


@pytest.mark.parametrize("cached", [0, 2**22])
def test_keys_are_read_by_rows_or_by_themselves(cached, monkeypatch):
    monkeypatch.setattr("adapt.attention.rows.CACHED", cached)
    torch.manual_seed(0)
    query, keys = torch.randn(2, 4, 3, 8), torch.randn(2, 2, 9, 8)
    want = (query @ keys.repeat_interleave(2, 1).transpose(2, 3) * 0.3).softmax(-1)
    torch.testing.assert_close(over_keys(query, keys, None, 0.3), want)
