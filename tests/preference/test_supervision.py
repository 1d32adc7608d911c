"""Attention supervision against arithmetic written out by hand, and its gradients."""

import math

import pytest
import torch

from adapt.preference.supervision import (
    anchor_supervision,
    attention_supervision,
    box_supervision,
    divergence,
)

ALL_EARLY = 9  # K, of which answers here have fewer tokens: the hinge on visual mass is silent


def maps_of(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed)).double()


def test_a_divergence_is_that_of_torch():
    target, maps = maps_of(3, 5).softmax(-1), 0.2 * maps_of(3, 5, seed=1)
    log_a_hat = (maps / maps.sum(-1, keepdim=True)).log()
    want = torch.nn.functional.kl_div(log_a_hat, target, reduction="none").sum(-1)
    torch.testing.assert_close(divergence(target, maps), want)
    assert (divergence(target, maps) > 0).all()
    torch.testing.assert_close(divergence(target, 0.3 * target), torch.zeros(3).double())
    assert not divergence(torch.zeros(3, 5), torch.zeros(3, 5)).any(), "nor is there a nan"


def test_anchor_by_hand():
    """One layer, two tokens of two patches; the second answer has one token, the third no target.

    A_hat is (1/2, 1/2) and (3/4, 1/4) against the anchor (1, 0): log 2 and log 4/3.
    """
    maps = torch.tensor([[[0.4, 0.4], [0.6, 0.2]], [[0.4, 0.4], [9.0, 1.0]], [[0.1, 0.2]] * 2])
    mask = torch.tensor([[True, True], [True, False], [True, True]])
    anchor = torch.tensor([[2.0, 0.0], [0.5, 0.0], [0.5, 0.5]])
    flat = torch.tensor([False, False, True])
    loss, metrics = anchor_supervision(maps[:, None], mask, anchor, flat, ALL_EARLY)
    expected = ((math.log(2) + math.log(4 / 3)) / 2 + math.log(2) + 0) / 3
    assert loss.item() == pytest.approx(expected)
    assert metrics["kl"].item() == pytest.approx(expected)
    assert metrics["placed"].item() == pytest.approx(2 / 3)
    assert metrics["empty"].item() == 1


def test_boxes_by_hand():
    """Two layers; the first answer names three things at its tokens 2 and 0, the last unplaced."""
    first, second = [[0.4, 0.4], [0.1, 0.7], [0.6, 0.2]], [[0.2, 0.6], [0.1, 0.7], [0.5, 0.5]]
    maps = torch.tensor([[first, second], [first, second]])
    rows = torch.tensor([[7, 8, 9], [4, 5, -1]])
    producers = torch.tensor([[9, 7, 7], [-1, -1, -1]])
    targets = torch.tensor([[[1.0, 0.0], [0.5, 0.5], [0.0, 0.0]], [[0.0, 0.0]] * 3])
    loss, metrics = box_supervision(maps, rows, producers, targets, ALL_EARLY)
    # token 2: -log 3/4 and -log 1/2; token 0: 0 and (log 1/2 - log 1/4 + log 1/2 - log 3/4) / 2
    named = [(math.log(4 / 3) + math.log(2)) / 2, (0 + math.log(4 / 3) / 2) / 2]
    assert loss.item() == pytest.approx(sum(named) / 2 / 2)
    assert metrics["placed"].item() == pytest.approx(2 / 3)
    assert metrics["mentions"].item() == pytest.approx(3 / 2)


def test_a_mention_that_is_not_trained_on_has_no_say():
    """Of a prefix: no row produces it."""
    maps, targets = maps_of(1, 2, 3, 4), torch.eye(4)[None, :2]
    rows = torch.tensor([[7, 8, -1]])
    loss, metrics = box_supervision(maps, rows, torch.tensor([[3, 8]]), targets, ALL_EARLY)
    alone, _ = box_supervision(maps, rows, torch.tensor([[8]]), targets[:, 1:], ALL_EARLY)
    assert loss.equal(alone) and metrics["mentions"].item() == 1


def test_without_a_place_only_the_hinge_on_visual_mass_is_left():
    maps, rows = maps_of(2, 1, 4, 3), torch.arange(8).view(2, 4)
    none = (torch.full((2, 0), -1), torch.zeros(2, 0, 3))
    loss, metrics = box_supervision(maps, rows, *none, 1)
    early, early_metrics = attention_supervision(maps, rows >= 0, torch.rand(2, 3), 1)
    assert loss.equal(early_metrics["mass"]) and early > loss > 0
    assert metrics["placed"].item() == metrics["mentions"].item() == metrics["kl"].item() == 0
    flat = torch.tensor([True, True])
    loss, metrics = anchor_supervision(maps, rows >= 0, torch.ones(2, 3), flat, 1)
    assert loss.equal(early_metrics["mass"]) and metrics["placed"].item() == 0
    assert {k for k in early_metrics if not k.startswith("amc")} | {"kl", "placed"} == {*metrics}


def terms(maps, rows, producers, targets, anchor, flat):
    return torch.stack(
        [
            attention_supervision(maps, rows >= 0, anchor, 2)[0],
            anchor_supervision(maps, rows >= 0, anchor, flat, 2)[0],
            box_supervision(maps, rows, producers, targets, 2)[0],
        ]
    )


def batch():
    rows = torch.tensor([[3, 4, 5, 6, 7], [3, 4, -1, -1, -1], [2, 3, 4, -1, -1], [5, 6, 7, 8, -1]])
    producers = torch.tensor([[4, 6, 7], [3, -1, -1], [-1, -1, -1], [6, 6, 9]])
    targets = maps_of(4, 3, 6, seed=2).softmax(-1) * (producers >= 0)[..., None]
    flat = torch.tensor([False, True, False, False])
    return maps_of(4, 2, 5, 6), rows, producers, targets, maps_of(4, 6, seed=1), flat


def test_every_term_of_a_batch_is_the_mean_of_its_halves():
    values = batch()
    first, second = (terms(*(value[part] for value in values)) for part in (slice(2), slice(2, 4)))
    torch.testing.assert_close(terms(*values), (first + second) / 2)


@pytest.mark.parametrize("term", [1, 2])
def test_gradients_are_those_of_finite_differences(term):
    """The early level has no gradient, so a hinge at work would differ: it is silent here, as late
    tokens get more attention than early ones."""
    maps, *others = batch()
    maps = torch.cat([0.1 * maps[:, :, :2], maps[:, :, 2:]], 2) / 9
    maps.requires_grad_()
    assert torch.autograd.gradcheck(lambda one: terms(one, *others)[term], (maps,))


def test_descent_moves_attention_to_the_target_and_not_off_the_image():
    logits = torch.zeros(1, 1, 1, 7, requires_grad=True)  # six patches and one place beside them
    target = torch.eye(6)[None, :1]
    for _ in range(200):
        maps = logits.softmax(-1)[..., :6]
        rows, producers = torch.tensor([[3]]), torch.tensor([[3]])
        loss, _ = box_supervision(maps, rows, producers, target, ALL_EARLY)
        (gradient,) = torch.autograd.grad(loss, logits)
        logits = (logits - gradient).detach().requires_grad_()
    weights = logits.softmax(-1)[0, 0, 0]
    assert weights[0] > 0.9 and loss.item() < 0.05
    assert gradient[..., 6].abs().max() < 1e-8, "what is beside the image is left alone"
