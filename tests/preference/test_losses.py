"""Losses against arithmetic written out by hand."""

import math

import pytest
import torch

from adapt.preference.losses import attention_supervision, vag_dpo


def test_vag_dpo_by_hand():
    chosen, rejected = torch.tensor([-1.0, -2.0]), torch.tensor([-3.0, -1.0])
    loss, seen = vag_dpo(chosen, rejected, torch.full((2,), -2.0), torch.full((2,), -2.0), beta=0.5)
    # margins 0.5 * ((1) - (-1)) = 1 and 0.5 * ((0) - (1)) = -0.5
    expected = (math.log(1 + math.exp(-1)) + math.log(1 + math.exp(0.5))) / 2
    assert loss.item() == pytest.approx(expected, abs=1e-6)
    assert seen["vag/accuracies"].item() == 0.5
    assert seen["vag/margins"].item() == pytest.approx(0.25)


def test_attention_supervision_by_hand():
    # One layer, two image tokens, K = 1: token 0 is early, tokens 1 and 2 are late, token 3 is padding.
    maps = torch.tensor([[[[0.4, 0.4], [0.2, 0.2], [0.4, 0.4], [9.0, 9.0]]]], requires_grad=True)
    mask = torch.tensor([[True, True, True, False]])
    loss, seen = attention_supervision(maps, mask, torch.tensor([[0.5, 0.5]]), first=1)
    # mass: early 0.8, late 0.4 and 0.8 -> relu(1 - 0.5) and 0 -> mean 0.25; S_AMC is 0.25 for all three -> 0
    assert loss.item() == pytest.approx(0.25)
    assert seen["attn/mass_late_early"].item() == pytest.approx(0.75)
    loss.backward()
    assert maps.grad is not None
    assert maps.grad[0, 0, 1].lt(0).all(), "descent lifts the attention that has decayed"
    assert maps.grad[0, 0, 0].abs().sum() == 0, "the early level has no gradient"
    assert maps.grad[0, 0, 3].abs().sum() == 0, "padding has no gradient"


def test_attention_supervision_ignores_answers_without_late_tokens():
    loss, _ = attention_supervision(torch.rand(2, 1, 3, 4), torch.ones(2, 3, dtype=torch.bool), torch.rand(2, 4), 3)
    assert loss.item() == 0
