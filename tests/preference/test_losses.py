"""Losses against arithmetic written out by hand."""

import math

import pytest
import torch

from adapt.preference.losses import Weights, anchored, dpo, sft
from adapt.preference.supervision import attention_supervision
from tests.support.preference_rows import settings


def test_dpo_by_hand():
    chosen, rejected = torch.tensor([-1.0, -2.5]), torch.tensor([-3.0, -1.5])
    loss, metrics = dpo(chosen, rejected, torch.full((2,), -2.0), torch.full((2,), -2.0), beta=0.5)
    # margins 0.5 * ((1) - (-1)) = 1 and 0.5 * ((-0.5) - (0.5)) = -0.5
    expected = (math.log(1 + math.exp(-1)) + math.log(1 + math.exp(0.5))) / 2
    assert loss.item() == pytest.approx(expected, abs=1e-6)
    assert {key: round(value.item(), 4) for key, value in metrics.items()} == {
        "rewards_chosen": 0.125,  # 0.5 * (1 - 0.5) / 2
        "rewards_rejected": -0.125,
        "margins": 0.25,
        "accuracies": 0.5,
        "displacement": 0.25,
        "displaced": 0.5,
    }


def test_an_anchored_reward_by_hand():
    chosen, reference = torch.tensor([-1.0, -4.0]), torch.tensor([-2.0, -2.0])
    # rewards 0.5 * 1 and 0.5 * (-2)
    expected = (math.log(1 + math.exp(-0.5)) + math.log(1 + math.exp(1.0))) / 2
    assert anchored(chosen, reference, beta=0.5).item() == pytest.approx(expected, abs=1e-6)
    assert anchored(reference, reference, beta=0.5).item() == pytest.approx(math.log(2), abs=1e-6)


def test_gradients_of_the_terms_of_likelihoods():
    generator = torch.Generator().manual_seed(1)
    values = -torch.rand(6, 5, generator=generator, dtype=torch.double)
    chosen, rejected = (values[i].clone().requires_grad_() for i in (0, 1))
    tokens = values.clone().requires_grad_()
    mask = torch.arange(5)[None] < torch.tensor([5, 1, 3, 4, 2, 5])[:, None]
    check = torch.autograd.gradcheck
    assert check(lambda *both: dpo(*both, *values[2:4], beta=0.5)[0], (chosen, rejected))
    assert check(lambda one: anchored(one, values[2], beta=0.5), (chosen,))
    assert check(lambda one: sft(one, mask), (tokens,))
    # Of one answer: -beta sigmoid(-beta (log pi - log ref)).
    (gradient,) = torch.autograd.grad(anchored(chosen[:1], values[2, :1], beta=0.5), chosen)
    moved = (chosen - values[2])[0].item()
    assert gradient[0].item() == pytest.approx(-0.5 / (1 + math.exp(0.5 * moved)))


def test_weights_of_a_configuration_and_the_passes_that_they_need():
    names = ("vag", "dpo", "sft", "anchor", "attn", "keep")
    given = {name: n / 10 for n, name in enumerate(names, 1)}
    config = settings(**{f"w_{name}": weight for name, weight in given.items()})
    assert Weights.of(config) == Weights(**given)
    assert Weights.of(config).passes() == ("plain", "guided", "kept")
    for plain in ("dpo", "sft", "anchor", "attn"):
        assert Weights(**{plain: 1.0}).passes() == ("plain",)
    assert Weights(vag=1.0).passes() == ("guided",) and Weights(keep=1.0).passes() == ("kept",)


def test_sft_weighs_answers_alike_whatever_their_length():
    log_probs = torch.tensor([[-1.0, -3.0, -2.0], [-4.0, 0.0, 0.0]])
    mask = torch.tensor([[1, 1, 1], [1, 0, 0]]) > 0
    assert sft(log_probs, mask).item() == pytest.approx((2.0 + 4.0) / 2)


def test_attention_supervision_by_hand():
    # One layer, two image tokens, K = 1: token 0 is early, tokens 1 and 2 are late, token 3 is
    # padding.
    maps = torch.tensor([[[[0.4, 0.4], [0.2, 0.2], [0.4, 0.4], [9.0, 9.0]]]], requires_grad=True)
    mask = torch.tensor([[True, True, True, False]])
    loss, metrics = attention_supervision(maps, mask, torch.tensor([[0.5, 0.5]]), anchor_tokens=1)
    # mass: early 0.8, late 0.4 and 0.8 -> relu(1 - 0.5) and 0 -> mean 0.25; S_AMC is 0.25 for all
    # three -> 0
    assert loss.item() == pytest.approx(0.25)
    assert {key: round(value.item(), 4) for key, value in metrics.items()} == {
        "mass": 0.25,
        "mass_late_early": 0.75,
        "mass_clipped": 0.5,
        "amc": 0.0,
        "amc_late_early": 1.0,
        "amc_clipped": 1.0,
        "empty": 0.0,
    }
    loss.backward()
    assert maps.grad is not None
    assert maps.grad[0, 0, 1].lt(0).all(), "descent lifts the attention that has decayed"
    assert maps.grad[0, 0, 0].abs().sum() == 0, "the early level has no gradient"
    assert maps.grad[0, 0, 3].abs().sum() == 0, "padding has no gradient"


def test_attention_supervision_ignores_answers_without_late_tokens():
    loss, metrics = attention_supervision(
        torch.rand(2, 1, 3, 4), torch.ones(2, 3, dtype=torch.bool), torch.rand(2, 4), 3
    )
    assert loss.item() == 0
    names = ("empty", "mass_late_early", "mass_clipped")
    assert [metrics[name].item() for name in names] == [1, 1, 1]


def test_every_term_of_a_batch_is_the_mean_of_its_halves():
    generator = torch.Generator().manual_seed(0)
    values = -torch.rand(4, 4, generator=generator)
    maps = torch.rand(4, 2, 5, 3, generator=generator)
    anchor = torch.rand(4, 3, generator=generator)
    mask = torch.arange(5)[None] < torch.tensor([5, 2, 3, 4])[:, None]

    def terms(part):
        rows = slice(*part)
        return torch.stack(
            [
                dpo(*values[:, rows], beta=0.5)[0],
                anchored(*values[:2, rows], beta=0.5),
                sft(maps[rows, 0, :, 0], mask[rows]),
                attention_supervision(maps[rows], mask[rows], anchor[rows], 2)[0],
            ]
        )

    torch.testing.assert_close(terms((0, 4)), (terms((0, 2)) + terms((2, 4))) / 2)
