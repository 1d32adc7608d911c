"""Early warning of hallucinated words: from token tables to scores, detectors and reports.

Scores of an object word, from the attention at the step that produced it: the five signals of
docs/method.md, section 1, each in the direction in which degradation is said to show, and their
calibrated combination, fitted on validation words. Baselines: SVAR (visual mass of the middle
layers, arXiv 2411.16724) and the token's own probability. Beside them the position in the answer:
hallucinations come late, and who warns of every late word needs no attention at all. What further
signals would add: `feature_sets.py`.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from adapt.attention.settings import SIGNALS
from adapt.metrics import detection
from adapt.metrics.bootstrap import Interval
from adapt.metrics.detection import Calibration, Detector, Report

ATTENTION = "attention"  # what attention alone tells; the variant that is shown and served
VARIANTS = {ATTENTION: SIGNALS, "attention_probability": (*SIGNALS, "logprob")}
BASELINES = ("svar", "probability")
Directions = Mapping[str, tuple[str, int]]
DIRECTIONS = {  # score: (column of the token table, which way risk rises)
    **{name: (name, -1) for name in ("mass", "focus", "amc", "responsiveness")},
    "drift": ("drift", 1),
    "svar": ("svar", -1),
    "probability": ("logprob", -1),
    "position": ("position", 1),
}
EMPTY = Interval(np.nan, np.nan, np.nan)


def object_words(tokens: pd.DataFrame) -> tuple[pd.DataFrame, NDArray[np.int_]]:
    """The rows of object words, and their labels: 1 hallucinated, 0 grounded.

    >>> words, labels = object_words(pd.DataFrame({"label": ["other", "grounded", "hallucinated"]}))
    >>> words.index.tolist(), labels.tolist()
    ([1, 2], [0, 1])
    """
    words = tokens[tokens.label != "other"]
    return words, (words.label == "hallucinated").to_numpy().astype(int)


def problem(tokens: pd.DataFrame) -> str:
    """Why these answers have too few object words for a detector; "" when they are enough."""
    words, labels = object_words(tokens)
    return detection.too_few(labels, words.image_id)


def fitted(
    tokens: pd.DataFrame, variants: Mapping[str, tuple[str, ...]] = VARIANTS
) -> dict[str, Detector]:
    """A detector for each of the variants' features, none where there is a `problem`."""
    words, labels = object_words(tokens)
    return {
        name: detection.fit({f: words[f] for f in features}, labels, words.image_id)
        for name, features in ({} if problem(tokens) else variants).items()
    }


def report(
    tokens: pd.DataFrame, detectors: Mapping[str, Detector], *, resamples: int, seed: int
) -> Report:
    """Every measure of every score on these object words; empty where there is a `problem`."""
    return judged(tokens, detectors, DIRECTIONS, resamples, seed)


def judged(
    tokens: pd.DataFrame,
    detectors: Mapping[str, Detector],
    directions: Directions,
    resamples: int,
    seed: int,
) -> Report:
    """`report` of these detectors, and of the columns that `directions` name.

    Reports of the same words, `resamples` and `seed` are on the same draws, whatever their scores.
    """
    words, labels = object_words(tokens)
    if problem(tokens):
        return {}
    every = scores(words, detectors, directions)
    return detection.compare(every, labels, words.image_id, resamples, seed)


def scores(
    words: pd.DataFrame, detectors: Mapping[str, Detector], directions: Directions = DIRECTIONS
) -> dict[str, detection.Floats]:
    """Every score of every row; higher warns more."""
    plain = {name: sign * words[of].to_numpy(float) for name, (of, sign) in directions.items()}
    return plain | {name: risk(detector, words) for name, detector in detectors.items()}


def risk(detector: Detector, tokens: pd.DataFrame) -> detection.Floats:
    """The risk of each row of a token table."""
    return detector.risk({name: tokens[name] for name in detector.features})


def calibrations(tokens: pd.DataFrame, detectors: Mapping[str, Detector]) -> dict[str, Calibration]:
    """How the detectors' risks compare with what happened."""
    words, labels = object_words(tokens)
    return {k: detection.calibration(risk(d, words), labels) for k, d in detectors.items()}


def metrics(report: Report, calibrated: Mapping[str, Calibration]) -> dict[str, float]:
    """Each score's measures, the combinations' AUROC lead over baselines, calibration errors."""
    names = {"auroc": "auroc", "ap": "ap", "caught": f"catch_at_{round(100 * detection.WARNED)}"}
    values = {f"{names[m]}_{score}": x.point for score, of in report.items() for m, x in of.items()}
    for variant in VARIANTS:
        for baseline in BASELINES if variant in report else ():
            lead = report[variant]["auroc"].minus(report[baseline]["auroc"])
            key = f"{variant}_above_{baseline}"
            values |= {key: lead.point, f"{key}_low": lead.low, f"{key}_high": lead.high}
    return values | {
        f"calibration_error_{name}": c.error for name, c in calibrated.items() if name in report
    }


def table(reports: Mapping[str, Report]) -> pd.DataFrame:
    """One row per score, columns `<arm>_<measure>` and its bounds; empty for too few words."""
    names = dict.fromkeys(score for report in reports.values() for score in report)
    columns: dict[str, Any] = {"score": list(names)}
    for arm, report in reports.items():
        for measure in detection.MEASURES:
            values = [
                report[score][measure].interval() if score in report else EMPTY for score in names
            ]
            for end, field in (("", "point"), ("_low", "low"), ("_high", "high")):
                columns[f"{arm}_{measure}{end}"] = [getattr(value, field) for value in values]
    return pd.DataFrame(columns)


def calibration_table(calibrated: Mapping[str, Calibration]) -> pd.DataFrame:
    """One row per bin, columns `<variant>_risk` (mean), `_share` (hallucinated) and `_words`."""
    columns: dict[str, Any] = {}
    for name in VARIANTS:
        c = calibrated.get(name, Calibration((), (), (), np.nan))
        columns |= {f"{name}_risk": c.risk, f"{name}_share": c.share, f"{name}_words": c.count}
    return pd.DataFrame(columns)
