"""Early warning: measures against scikit-learn's, the bootstrap against repeated words, and the
file that is kept.
"""

import dataclasses
import itertools
import json

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from adapt.metrics import detection
from adapt.metrics.detection import (
    Detector,
    calibration,
    caught,
    compare,
    fit,
    too_few,
    write,
)
from adapt.params import InputError


def auroc(scores, labels):
    return float(detection.MEASURES["auroc"](*detection.tallies(scores, labels))[0])


def average_precision(scores, labels):
    return float(detection.MEASURES["ap"](*detection.tallies(scores, labels))[0])


words = st.lists(st.tuples(st.integers(-3, 3), st.booleans()), min_size=2, max_size=40)


def columns(drawn):
    scores, labels = np.array(drawn, dtype=float).T
    assume(0 < labels.sum() < len(labels))
    return scores, labels


def world(count=600, seed=0):
    """Words of `count` images, three each: feature a tells hallucinated ones, b less, c nothing."""
    rng = np.random.default_rng(seed)
    labels = (rng.random(3 * count) < 0.15).astype(int)
    noise = rng.normal(size=(3, len(labels)))
    features = {"a": 2.0 * labels + noise[0], "b": 0.7 * labels + noise[1], "c": noise[2]}
    return features, labels, np.repeat(np.arange(count), 3)


@settings(deadline=None)
@given(words)
def test_measures_are_scikit_learns(drawn):
    from sklearn.metrics import average_precision_score, roc_auc_score

    scores, labels = columns(drawn)
    assert auroc(scores, labels) == pytest.approx(roc_auc_score(labels, scores))
    assert average_precision(scores, labels) == pytest.approx(
        average_precision_score(labels, scores)
    )


@settings(deadline=None)
@given(words)
def test_only_the_order_of_scores_matters(drawn):
    scores, labels = columns(drawn)
    for measure in (auroc, average_precision, caught):
        assert measure(np.exp(scores), labels) == pytest.approx(measure(scores, labels))
    assert auroc(-scores, labels) == pytest.approx(1 - auroc(scores, labels))


@settings(deadline=None)
@given(words, st.lists(st.floats(0, 1), min_size=2, max_size=5))
def test_more_warnings_catch_more_and_all_of_them_all(drawn, shares):
    scores, labels = columns(drawn)
    values = [caught(scores, labels, share) for share in sorted(shares)]
    assert all(a <= b + 1e-12 for a, b in itertools.pairwise(values))
    assert caught(scores, labels, 0) == 0 and caught(scores, labels, 1) == pytest.approx(1)
    assert caught(np.zeros(len(labels)), labels, 0.3) == pytest.approx(0.3), (
        "a score that says nothing"
    )


@settings(deadline=None)
@given(words, st.randoms())
def test_a_weight_of_two_is_the_word_twice(drawn, random):
    scores, labels = columns(drawn)
    weights = np.array([random.randint(1, 3) for _ in labels])
    repeated = np.repeat(scores, weights), np.repeat(labels, weights)
    for name, measure in (("auroc", auroc), ("ap", average_precision), ("caught", caught)):
        weighted = detection.MEASURES[name](*detection.tallies(scores, labels, weights[None]))[0]
        assert weighted == pytest.approx(measure(*repeated)), name


def test_without_both_kinds_of_words_there_is_no_auroc():
    assert np.isnan(
        [auroc([0.1, 0.2], [1, 1]), auroc([0.1, 0.2], [0, 0]), auroc([], []), caught([], [])]
    ).all()


def test_intervals_cover_and_differences_are_paired():
    features, labels, images = world()
    found = compare({**features, "again": features["a"]}, labels, images, resamples=400, seed=1)
    point, low, high = found["a"]["auroc"].interval()
    assert low < 0.921 < high and point == auroc(
        features["a"], labels
    )  # normal at distance 2: Phi(sqrt 2) = 0.921
    assert found["a"]["auroc"].minus(found["again"]["auroc"]) == (0, 0, 0)
    lead = found["a"]["auroc"].minus(found["b"]["auroc"])
    assert (
        lead.low > 0
        and found["c"]["auroc"].interval().low < 0.5 < found["c"]["auroc"].interval().high
    )
    again = compare(features, labels, images, resamples=400, seed=1)
    assert (
        again["b"]["ap"].interval()
        == found["b"]["ap"].interval()
        != compare(features, labels, images, resamples=400, seed=2)["b"]["ap"].interval()
    )


def test_words_of_one_image_are_drawn_together():
    """Fifty copies of each word are no more knowledge: the interval stays as wide."""
    features, labels, images = world(40)
    once = compare({"a": features["a"]}, labels, images, resamples=300, seed=0)["a"][
        "auroc"
    ].interval()
    many = [np.repeat(values, 50) for values in (features["a"], labels, images)]
    copied = compare({"a": many[0]}, many[1], many[2], resamples=300, seed=0)["a"][
        "auroc"
    ].interval()
    assert copied.high - copied.low == pytest.approx(once.high - once.low, rel=0.2)


def test_the_combination_is_scikit_learns_and_is_calibrated():
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    features, labels, images = world()
    detector = fit(features, labels, images)
    x = np.stack(list(features.values()), 1)
    model = make_pipeline(
        StandardScaler(), LogisticRegression(C=detector.strength, tol=1e-8, max_iter=1000)
    ).fit(x, labels)
    risk = detector.risk(features)
    np.testing.assert_allclose(risk, model.predict_proba(x)[:, 1], atol=1e-6)
    assert risk.mean() == pytest.approx(labels.mean(), abs=1e-3)
    weights = dict(zip(detector.features, detector.weights, strict=True))
    assert weights["a"] > weights["b"] > abs(weights["c"])
    other, truth, _ = world(seed=1)
    assert calibration(detector.risk(other), truth).error < 0.03
    assert auroc(detector.risk(other), truth) > auroc(other["a"], truth) > 0.9


def test_a_feature_that_never_changes_does_no_harm():
    features, labels, images = world(100)
    detector = fit({**features, "flat": np.full(len(labels), 0.5)}, labels, images)
    assert np.isfinite(detector.risk({**features, "flat": np.zeros(len(labels))})).all()


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=50), st.integers(1, 12)
)
def test_calibration_keeps_every_word(drawn, bins):
    risks, labels = np.array(drawn, dtype=float).T
    found = calibration(risks, labels, bins)
    assert sum(found.count) == len(labels) and max(found.count) - min(found.count) <= 1
    assert np.average(found.share, weights=found.count) == pytest.approx(labels.mean())
    assert np.average(found.risk, weights=found.count) == pytest.approx(risks.mean())
    assert abs(risks.mean() - labels.mean()) - 1e-9 <= found.error <= 1


@pytest.mark.parametrize(
    "wrong, images, problem",
    [
        (0, 20, "0 hallucinated object words in 0 images; 10 in 5 are the fewest"),
        (9, 20, "9 hallucinated object words in 9 images; 10 in 5 are the fewest"),
        (12, 3, "12 hallucinated object words in 3 images; 10 in 5 are the fewest"),
        (35, 20, "5 grounded object words in 5 images; 10 in 5 are the fewest"),
        (10, 20, ""),
    ],
)
def test_too_few_words_to_say_anything(wrong, images, problem):
    labels = (np.arange(40) < wrong).astype(int)
    assert too_few(labels, np.arange(40) % images) == problem


def test_the_file_holds_all_that_a_risk_needs(tmp_path):
    features, labels, images = world(100)
    detector = fit(features, labels, images)
    path = tmp_path / "detector.json"
    write(path, {"attention": detector}, {"split": "validation", "words": 300})
    content = json.loads(path.read_text())
    assert (content["version"], content["fitted_on"]["words"]) == (detection.VERSION, 300)
    fields = content["variants"]["attention"].items()
    again = Detector(**{k: tuple(v) if isinstance(v, list) else v for k, v in fields})
    assert again == detector
    assert (again.risk(features) == detector.risk(features)).all()


def test_a_feature_that_is_not_given_is_named():
    features, labels, images = world(100)
    detector = fit(features, labels, images)
    with pytest.raises(InputError, match="needs c; given: a, b"):
        detector.risk({"a": features["a"], "b": features["b"]})
    assert detector.risk({**features, "d": [0]}).shape == labels.shape
    surest = dataclasses.replace(detector, weights=(1e4, 0, 0))
    assert set(surest.risk({"a": [-9, 9], "b": [0, 0], "c": [0, 0]})) == {0, 1}, "no overflow"
