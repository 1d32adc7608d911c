"""The divergence from the base's distributions is torch's, whole or with the rest as one event."""

from functools import partial

import pytest
import torch
import torch.nn.functional as F

from adapt.preference import distillation
from adapt.preference.distillation import Distributions


def logits(tokens: int, vocabulary: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return 3 * torch.randn(tokens, vocabulary, generator=generator)


def whole(theirs: torch.Tensor, ours: torch.Tensor) -> torch.Tensor:
    """torch's KL(theirs || ours) of each token."""
    expected = F.kl_div(ours.log_softmax(1), theirs.softmax(1), reduction="none")
    return expected.sum(1)


def test_a_small_vocabulary_is_kept_whole():
    base, ours = logits(5, 40), logits(5, 40, seed=1)
    reference = Distributions.of(base)
    assert reference.ids_NK is None
    torch.testing.assert_close(reference.divergence(ours), whole(base, ours))
    assert not reference.divergence(base).any(), "0, not nearly 0"


def test_of_a_large_vocabulary_the_rest_is_one_event():
    base, ours = logits(6, 700), logits(6, 700, seed=1)
    reference = Distributions.of(base)
    assert reference.ids_NK.shape == (6, distillation.TOP)
    # By hand: add up the probabilities of what is not among the most likely.
    for i, ids in enumerate(reference.ids_NK.tolist()):
        assert set(ids) == set(base[i].topk(distillation.TOP).indices.tolist())
        p, q = base[i].double().softmax(0), ours[i].double().softmax(0)
        p, q = (torch.cat([x[ids], (1 - x[ids].sum())[None]]) for x in (p, q))
        expected = (p * (p / q).log()).sum()
        assert reference.divergence(ours)[i].item() == pytest.approx(expected.item(), rel=1e-4)
    assert (reference.divergence(ours) <= whole(base, ours)).all(), "less is told apart"
    torch.testing.assert_close(reference.divergence(base), torch.zeros(6), atol=1e-6, rtol=0)
    # What moves among the rest alone is not seen.
    moved = base.clone()
    kept = torch.zeros_like(base, dtype=torch.bool).scatter(1, reference.ids_NK, True)
    moved[~kept] = base[~kept].view(6, -1).flip(1).reshape(-1)
    torch.testing.assert_close(reference.divergence(moved), torch.zeros(6), atol=1e-6, rtol=0)
    assert whole(base, moved).min() > 1e-3


def test_what_a_model_rules_out_has_no_mass_and_harms_nothing():
    base = logits(3, 40)
    base[:, 7] = -torch.inf
    ours = base.clone().requires_grad_()
    loss = Distributions.of(base).divergence(ours).sum()
    loss.backward()
    assert loss.item() == 0 and ours.grad.isfinite().all()


@pytest.mark.parametrize("size", [20, distillation.WHOLE + 1])
def test_its_gradient_is_that_of_finite_differences(size):
    """Of a whole vocabulary, and of one with a rest."""
    reference = Distributions.of(logits(2, size).double())
    ours = logits(2, size, seed=1).double().requires_grad_()
    loss = partial(distillation.distillation, reference, counts=[1, 1])
    assert torch.autograd.gradcheck(loss, (ours,))


def test_every_row_counts_alike():
    base, ours = logits(6, 20), logits(6, 20, seed=1)
    each = whole(base, ours)
    loss = distillation.distillation(Distributions.of(base), ours, [1, 5])
    torch.testing.assert_close(loss, (each[0] + each[1:].mean()) / 2)
