"""Samples are distributed as the softmax says, and belong to their seeds alone."""

import torch

from adapt.generation.sampling import Gumbel, seed_of

LOGITS = torch.tensor([2.0, 1.0, 0.0, -1.0, -torch.inf])
# The 99.9 % quantile of chi-square with three degrees of freedom.
LIMIT = 16.27


def draws(seeds, temperature=1.0, steps=1, scores=LOGITS):
    chosen = Gumbel(seeds, temperature, torch.device("cpu"))
    many = scores.expand(len(seeds), -1)
    return torch.stack([chosen(torch.empty(0), many).argmax(1) for _ in range(steps)], 1)


def chi_square(tokens, temperature):
    expected = (LOGITS / temperature).softmax(0)[:4] * tokens.numel()
    counts = torch.bincount(tokens.flatten(), minlength=5)
    assert counts[4] == 0, "what is impossible is never drawn"
    return float(((counts[:4] - expected) ** 2 / expected).sum())


def test_the_distribution_is_the_softmax_at_the_temperature():
    for temperature in (0.5, 1.0, 2.0):
        # Over the steps of few answers, and over the first steps of many.
        for count, steps in ((2, 4000), (4000, 2)):
            seeds = [seed_of(7, "row", n) for n in range(count)]
            assert chi_square(draws(seeds, temperature, steps), temperature) < LIMIT


def test_answers_of_neighbouring_seeds_are_independent():
    tokens = draws([seed_of(7, "row", n) for n in range(4000)])[:, 0]
    table = torch.zeros(4, 4)
    for one, other in zip(tokens[::2], tokens[1::2], strict=True):
        table[one, other] += 1
    share = LOGITS.softmax(0)[:4]
    expected = share[:, None] * share * 2000
    # 99.9 % of chi-square with fifteen degrees of freedom.
    assert float(((table - expected) ** 2 / expected.clamp_min(1)).sum()) < 37.7


def test_an_answer_has_draws_of_its_own():
    seeds = [seed_of(1, f"row {n}", 0) for n in range(5)]
    together = draws(seeds, steps=20)
    for n, seed in enumerate(seeds):
        assert torch.equal(draws([seed], steps=20)[0], together[n])
    assert torch.equal(draws(seeds[::-1], steps=20), together.flip(0))
    assert len({tuple(row) for row in together.tolist()}) == 5


def test_a_token_that_is_hardly_possible_is_hardly_drawn():
    """A generator of few bits would give some token of a large vocabulary an endless noise."""
    scores = torch.full((20_000,), -60.0)
    scores[3] = 0.0
    assert draws(list(range(20)), steps=20, scores=scores).eq(3).all()
