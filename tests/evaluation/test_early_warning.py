"""From token tables to detectors, reports and what the stage logs."""

import numpy as np
import pandas as pd
import pytest

from adapt.attention.settings import SIGNALS
from adapt.evaluation import early_warning
from tests.metrics.test_detection import auroc


def tokens(images: int = 200, seed: int = 0, wrong: float = 0.15) -> pd.DataFrame:
    """Two object words and another token an image; at hallucinated words mass is low and the token
    improbable.
    """
    rng = np.random.default_rng(seed)
    labels = np.where(rng.random((images, 3)) < wrong, "hallucinated", "grounded")
    labels[:, 2] = "other"
    is_wrong = (labels == "hallucinated").ravel()
    table = pd.DataFrame(
        {"image_id": np.repeat([f"i{n}" for n in range(images)], 3), "label": labels.ravel()}
    )
    noise = rng.normal(size=(4, len(table)))
    table = table.assign(**dict.fromkeys(SIGNALS, 0.5), position=np.tile([0, 1, 2], images))
    return table.assign(
        mass=0.7 - 0.2 * is_wrong + 0.1 * noise[0],
        focus=0.3 + 0.1 * noise[1],
        svar=0.7 - 0.1 * is_wrong + 0.1 * noise[2],
        logprob=-np.exp(noise[3] + is_wrong),
    )


def test_from_tokens_to_metrics() -> None:
    detectors = early_warning.fitted(tokens())
    assert {name: d.features for name, d in detectors.items()} == early_warning.VARIANTS
    test = tokens(seed=1)
    found = early_warning.report(test, detectors, resamples=200, seed=7)
    assert set(found) == {*early_warning.DIRECTIONS, *early_warning.VARIANTS}
    calibrated = early_warning.calibrations(test, detectors)
    metrics = early_warning.metrics(found, calibrated)
    assert metrics["auroc_mass"] == found["mass"]["auroc"].point > 0.85, "Phi(sqrt 2) = 0.92"
    assert metrics["auroc_position"] == pytest.approx(0.5, abs=0.1)
    assert (
        metrics["auroc_attention_probability"] > metrics["auroc_attention"] > metrics["auroc_svar"]
    )
    assert metrics["catch_at_10_attention"] == found["attention"]["caught"].point > 0.4
    lead = found["attention"]["auroc"].minus(found["svar"]["auroc"])
    keys = ("attention_above_svar", "attention_above_svar_low", "attention_above_svar_high")
    assert tuple(metrics[key] for key in keys) == lead
    assert metrics["calibration_error_attention"] < 0.1
    assert all(np.isfinite(value) for value in metrics.values())


def test_other_words_are_neither_fitted_nor_judged() -> None:
    table = tokens()
    changed = table.assign(mass=table.mass.where(table.label != "other", 99.0))
    assert early_warning.fitted(changed) == early_warning.fitted(table)


def test_without_hallucinated_words_there_is_nothing_and_a_reason() -> None:
    nothing = tokens(wrong=0.0)
    assert early_warning.problem(nothing).startswith("0 hallucinated object words")
    assert early_warning.fitted(nothing) == {}
    assert early_warning.report(nothing, {}, resamples=10, seed=0) == {}
    assert early_warning.metrics({}, {}) == {}
    silent = nothing.iloc[:0]
    assert (
        early_warning.problem(silent)
        and early_warning.report(silent, {}, resamples=10, seed=0) == {}
    )


def test_single_signals_are_judged_without_a_detector() -> None:
    found = early_warning.report(tokens(), {}, resamples=10, seed=0)
    assert set(found) == set(early_warning.DIRECTIONS)
    assert "auroc_mass" in early_warning.metrics(found, {})


def test_tables_keep_their_columns_when_empty() -> None:
    detectors = early_warning.fitted(tokens())
    found = early_warning.report(tokens(seed=1), detectors, resamples=50, seed=0)
    full = early_warning.table({"base": found, "tuned": {}})
    assert full["score"].tolist() == list(found)
    row = full.set_index("score").loc["attention"]
    assert row["base_auroc_low"] < row["base_auroc"] < row["base_auroc_high"] and np.isnan(
        row["tuned_auroc"]
    )
    assert list(early_warning.table({"base": {}, "tuned": {}}).columns) == list(full.columns)
    bins = early_warning.calibration_table(early_warning.calibrations(tokens(seed=1), detectors))
    assert len(bins) == 10 and bins["attention_words"].sum() == 400
    assert list(early_warning.calibration_table({}).columns) == list(bins.columns)


def test_the_risk_that_is_shown_is_the_detectors() -> None:
    table = tokens()
    detector = early_warning.fitted(table)[early_warning.ATTENTION]
    risk = early_warning.risk(detector, table)
    assert risk.shape == (len(table),)
    np.testing.assert_array_equal(
        risk, detector.risk({name: table[name].to_numpy() for name in SIGNALS})
    )
    words, labels = early_warning.object_words(table)
    assert auroc(early_warning.scores(words, {"a": detector})["a"], labels) > 0.85
