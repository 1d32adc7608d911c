"""Anchor, signals and steering: formulas by hand, and steering that is off exactly when it should be."""

import math

import pytest
import torch

from adapt.attention import anchor, signals
from adapt.attention.decode import answer
from adapt.attention.steer import SteerConfig
from tests import tiny_world

IMAGES = [tiny_world.picture(0), tiny_world.picture(1)]


def answers(**options):
    return answer(tiny_world.model(), tiny_world.processor(), IMAGES, tiny_world.QUESTIONS, first=3,
                  max_new_tokens=12, **options)  # fmt: skip


def test_signals_by_hand():
    # one answer, two tokens, one layer, two image tokens
    maps = torch.tensor([[[[0.3, 0.1]], [[0.1, 0.1]]]])
    w = torch.tensor([[1.0, 0.0]])
    assert signals.visual_mass(maps).tolist() == [[pytest.approx(0.4), pytest.approx(0.2)]]
    h = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))
    assert signals.focus(maps)[0].tolist() == [pytest.approx(1 - h / math.log(2)), pytest.approx(0, abs=1e-6)]
    # S_AMC: 0.09 / 0.16 = 0.5625, then 0.01 / 0.04 = 0.25
    assert signals.amc(maps[:, :, 0], w).tolist()[0] == [pytest.approx(0.5625), pytest.approx(0.25)]
    assert signals.fidelity(maps, w, first=1)[0].tolist() == [pytest.approx(1), pytest.approx(0.25 / 0.5625)]
    assert signals.responsiveness(maps)[0].tolist() == [pytest.approx(0.25), pytest.approx(0.25)]
    # JS((.5, .5), (1, 0)): m = (.75, .25)
    assert signals.drift(maps, w)[0, 1].item() == pytest.approx(h - math.log(2) / 2, abs=1e-5)


def test_signals_survive_one_image_token_and_no_attention():
    for maps in (torch.full((1, 3, 2, 1), 0.2), torch.zeros(1, 3, 2, 4)):
        w = torch.ones(1, maps.shape[-1])
        assert all(torch.isfinite(v).all() for v in signals.all_signals(maps, w, 2).values())


def test_spectral_score_prefers_detail_in_the_first_layer_and_smoothness_in_the_last():
    board = (torch.arange(16).view(4, 4) + torch.arange(4)[:, None]) % 2 * 1.0
    smooth = torch.ones(4, 4)
    maps = torch.stack([m.flatten() for m in (board, smooth)])[None]
    swapped = maps.flip(1)
    right, wrong = anchor.spectral_score(maps, (4, 4))[0], anchor.spectral_score(swapped, (4, 4))[0]
    # a checkerboard has half of its power at the highest frequency: 1 - |0.5 - 0.8|; a constant none: 1 - |0 - 0.2|
    assert right.tolist() == [pytest.approx(0.7, abs=1e-5), pytest.approx(0.8, abs=1e-5)]
    assert (right > wrong).all()


def test_layer_weights_sum_to_one_and_follow_the_focused_layer():
    maps = torch.full((1, 2, 16), 1.0)
    maps[0, 1, 5] = 100.0
    weights = anchor.layer_weights(maps, (4, 4))
    assert weights.sum().item() == pytest.approx(1)
    # the scores of two layers are 0 and 1 after min-max: softmax(0, 10)
    assert weights.max().item() == pytest.approx(1 / (1 + math.exp(-10)), abs=1e-6)


def test_debias_damps_sinks_only():
    noise = torch.tensor([[[6.0, 1.0, 1.0]]])  # shares 0.75, 0.125, 0.125; uniform is 1/3
    assert anchor.debias_mask(noise).tolist() == [pytest.approx(1 / 2.25), 1.0, 1.0]
    w = anchor.visual_anchor(torch.tensor([[[0.6, 0.1, 0.1]]]), (1, 3), anchor.debias_mask(noise))
    assert w.sum().item() == pytest.approx(1)
    assert w[0, 0].item() == pytest.approx((0.6 / 2.25) / (0.6 / 2.25 + 0.2))


def test_enhanced_image_keeps_what_the_anchor_supports():
    pixels = torch.zeros(1, 3, 4, 4)
    mask = anchor.pixel_mask(torch.tensor([[1.0, 0.0, 0.0, 0.0]]), (2, 2), (4, 4))
    v = anchor.enhanced(pixels, mask, torch.ones(3))
    assert v[0, 0, 0, 0] == 0 and v[0, 0, 3, 3] == 1
    noisy = anchor.noise_injected(torch.ones(1, 1, 64, 64), torch.randn(1, 1, 64, 64), 0.36)
    assert noisy.mean().item() == pytest.approx(0.8, abs=0.05)
    assert noisy.std().item() == pytest.approx(0.6, abs=0.05)


def test_steering_is_exactly_off_with_alpha_or_tau_zero():
    plain = answers()
    for off in (SteerConfig(alpha=0.0, tau=0.9), SteerConfig(alpha=0.5, tau=0.0)):
        steered = answers(steer=off)
        assert torch.equal(steered.tokens_BT, plain.tokens_BT)
        assert torch.equal(steered.maps_BTLN, plain.maps_BTLN)
        assert not steered.fired_BTL.any()


def test_steering_fires_after_the_anchor_and_moves_attention_towards_it():
    plain, steered = answers(), answers(steer=SteerConfig(alpha=1.0, tau=100.0))
    assert not steered.fired_BTL[:, :3].any()
    assert steered.fired_BTL[:, 3:].all(), "a threshold far above the early level always fires"
    assert torch.equal(steered.tokens_BT[:, :3], plain.tokens_BT[:, :3])
    w = anchor.visual_anchor(plain.maps_BTLN[:, :3].mean(1), plain.grid, torch.ones(16))
    before = signals.amc(plain.maps_BTLN[:, 3], w[:, None])
    after = signals.amc(steered.maps_BTLN[:, 3], w[:, None])
    assert (after[:, 0] > before[:, 0]).all(), "the first layer sees the same input in both runs"


def test_anchor_config_names_the_key():
    with pytest.raises(ValueError, match="tokens: must be at least 1"):
        anchor.AnchorConfig(tokens=0, noise_images=4)
