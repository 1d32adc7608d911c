"""The bootstrap against what is known in closed form, and its pairing."""

import numpy as np
import pytest

from adapt.metrics.bootstrap import difference, interval


def test_a_share_has_the_binomial_interval() -> None:
    hits = np.r_[np.ones(150), np.zeros(350)]  # 30 % of 500: standard error 2.049 points
    point, low, high = interval(hits, np.ones(500), resamples=4000, seed=1)
    assert point == pytest.approx(30)
    assert (low, high) == pytest.approx((30 - 1.96 * 2.049, 30 + 1.96 * 2.049), abs=0.4)


def test_the_ratio_is_pooled_not_averaged() -> None:
    assert interval([1, 1], [1, 9], resamples=10, seed=0).point == pytest.approx(20)


def test_a_paired_difference_is_narrower_than_two_intervals() -> None:
    rng = np.random.default_rng(0)
    hard = rng.random(400)  # both fail on the same images; b on a few more
    a, b = (hard < 0.30).astype(int), (hard < 0.35).astype(int)
    ones = np.ones(400)
    point, low, high = difference(a, ones, b, ones, resamples=2000, seed=0)
    assert point == pytest.approx(100 * (a.mean() - b.mean())) and high < 0
    alone = interval(a, ones, 2000, 0)
    assert high - low < 0.6 * (alone.high - alone.low)


def test_the_same_model_twice_differs_by_nothing() -> None:
    hits = np.random.default_rng(0).integers(0, 2, 50)
    assert difference(hits, np.ones(50), hits, np.ones(50), resamples=200, seed=3) == (0, 0, 0)


def test_seeded() -> None:
    hits = np.random.default_rng(0).integers(0, 2, 50)
    assert interval(hits, np.ones(50), 100, 5) == interval(hits, np.ones(50), 100, 5)
    assert interval(hits, np.ones(50), 100, 5) != interval(hits, np.ones(50), 100, 6)


def test_nothing_to_divide_by_is_zero() -> None:
    assert interval([0, 0], [0, 0], resamples=10, seed=0) == (0, 0, 0)


def test_many_images_are_resampled_in_blocks() -> None:
    point, low, high = interval(np.ones(30_000), np.full(30_000, 2), resamples=70, seed=0)
    assert (point, low, high) == (50, 50, 50)
