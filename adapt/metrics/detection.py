"""How well a score per word tells hallucinated object words from grounded ones, and a detector.

AUROC, average precision and the words caught are our own: scikit-learn's take one weighting of the
words a call, and the bootstrap needs some thousands, which here are the rows of one matrix.

A score is higher where a hallucination is more likely. Three measures, each with a 95 % interval
from a bootstrap over images, and paired differences on the same draws (`adapt/metrics/bootstrap.py`
says why images):

    auroc    chance that a hallucinated word scores above a grounded one; ties count half
    ap       average precision: mean over hallucinated words of the precision at their score
    caught   share of hallucinated words among the 10 % of words with the highest scores

The combination is L2 logistic regression on standardised features (Hosmer & Lemeshow), its strength
chosen by cross-validation over images; not reweighted, so its probabilities are risks. It is kept
as JSON, see `write`.

Shapes: Z object words, I images, R resamples, U distinct scores, F features.
"""

import dataclasses
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from adapt.metrics.bootstrap import LEVEL, Interval
from adapt.names import one_line
from adapt.params import InputError, require

VERSION = 1
WARNED = 0.1  # share of the words that `caught` warns at
FOLDS = 5
STRENGTHS = (0.01, 0.1, 1.0, 10.0, 100.0)  # C of scikit-learn: small is strong regularisation
FEWEST_WORDS, FEWEST_IMAGES = 10, FOLDS  # of each kind; with fewer no figure would mean anything
_CELLS = 1_000_000  # of an R x Z block

Floats = NDArray[np.float64]


def caught(scores: ArrayLike, labels: ArrayLike, share: float = WARNED) -> float:
    """Share of the hallucinated words among the `share` of all words with the highest scores.

    At the score where the budget ends, words are warned at in proportion: what a random choice
    among equals gives. One warning for four words catches the first of two; two warnings reach one
    of the three words of score 0.5, of which one is hallucinated: 1 + 1 / 3 of 2.

    >>> scores, labels = [0.9, 0.5, 0.5, 0.5], [1, 1, 0, 0]
    >>> caught(scores, labels, 0.25), round(caught(scores, labels, 0.5), 4)
    (0.5, 0.6667)
    """
    return float(_caught(*tallies(scores, labels), share)[0])


def tallies(
    scores: ArrayLike, labels: ArrayLike, weights_RZ: ArrayLike | None = None
) -> tuple[Floats, Floats]:
    """Weight of hallucinated and of grounded words at each distinct score, highest first: [R, U].

    Every measure is a sum over these: sorting once serves all measures and all resamples, which
    only weigh the same words differently (how often a word's image was drawn).
    """
    scores_Z, labels_Z = np.asarray(scores, dtype=np.float64), np.asarray(labels, dtype=np.float64)
    assert scores_Z.shape == labels_Z.shape and scores_Z.ndim == 1, (scores_Z.shape, labels_Z.shape)
    weights = np.ones((1, len(scores_Z))) if weights_RZ is None else np.asarray(weights_RZ)
    if not len(scores_Z):
        return np.zeros((len(weights), 1)), np.zeros((len(weights), 1))
    # Sort from the highest score, find where each distinct score starts, and sum up in between.
    order = np.argsort(-scores_Z, kind="stable")
    starts = np.flatnonzero(np.r_[True, np.diff(scores_Z[order]) != 0])
    weights = weights[:, order].astype(np.float64)
    wrong_RU = np.add.reduceat(weights * labels_Z[order], starts, 1)
    return wrong_RU, np.add.reduceat(weights, starts, 1) - wrong_RU


def _auroc(wrong_RU: Floats, right_RU: Floats) -> Floats:
    """Area under the ROC curve; NaN without both kinds of words.

    Of four pairs, 0.9 beats 0.1 and 0.5, and 0.5 beats 0.1 and ties with 0.5: 3.5 of 4.

    >>> _auroc(*tallies([0.9, 0.5, 0.5, 0.1], [1, 1, 0, 0])).tolist()
    [0.875]
    """
    total = right_RU.sum(1, keepdims=True)
    # A hallucinated word beats the grounded ones of lower scores, and half of those of its own.
    beaten = total - right_RU.cumsum(1) + right_RU / 2
    return _over((wrong_RU * beaten).sum(1), wrong_RU.sum(1) * total[:, 0])


def _average_precision(wrong_RU: Floats, right_RU: Floats) -> Floats:
    """Average precision; words of one score are ranked together. NaN without hallucinated words.

    The first word is hallucinated (precision 1 of 1), the third is the second such (2 of 3).

    >>> _average_precision(*tallies([0.9, 0.5, 0.4, 0.1], [1, 0, 1, 0])).round(4).tolist()
    [0.8333]
    """
    caught = wrong_RU.cumsum(1)
    precision = np.nan_to_num(_over(caught, caught + right_RU.cumsum(1)))  # 0 before the first word
    return _over((wrong_RU * precision).sum(1), wrong_RU.sum(1))


def _caught(wrong_RU: Floats, right_RU: Floats, share: float = WARNED) -> Floats:
    every = wrong_RU + right_RU
    # What is left of the budget of warnings at each score; the last score within it gets a part.
    left = share * every.sum(1, keepdims=True) - (every.cumsum(1) - every)
    warned = np.clip(np.nan_to_num(_over(left, every)), 0, 1)
    return _over((wrong_RU * warned).sum(1), wrong_RU.sum(1))


def _over(above: Floats, below: Floats) -> Floats:
    return np.divide(above, below, out=np.full_like(above, np.nan), where=below > 0)


Measure = Callable[[Floats, Floats], Floats]
MEASURES: dict[str, Measure] = {"auroc": _auroc, "ap": _average_precision, "caught": _caught}


@dataclasses.dataclass(frozen=True)
class Resampled:
    """A value and what it is on each resample of the images."""

    point: float
    drawn_R: Floats

    def interval(self) -> Interval:
        """With 95 % bounds; resamples without both kinds of words say nothing and are left out."""
        low, high = np.nanquantile(self.drawn_R, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
        return Interval(self.point, float(low), float(high))

    def minus(self, other: "Resampled") -> Interval:
        """The paired difference to another value on the same draws."""
        return Resampled(self.point - other.point, self.drawn_R - other.drawn_R).interval()


Report = dict[str, dict[str, Resampled]]  # by score and measure


def compare(
    scores: Mapping[str, ArrayLike], labels: ArrayLike, images: ArrayLike, resamples: int, seed: int
) -> Report:
    """Every measure of every score on the same words, and on the same resamples of the images.

    `scores`: by name, a value per word; `labels`: 1 for hallucinated; `images`: that of each word.
    """
    draws = list(_draws(images, resamples, seed))
    report: Report = {}
    for name, values in scores.items():
        once, *drawn = (tallies(values, labels, weights) for weights in (None, *draws))
        report[name] = {
            measure: Resampled(float(of(*once)[0]), np.concatenate([of(*part) for part in drawn]))
            for measure, of in MEASURES.items()
        }
    return report


def _draws(images: ArrayLike, resamples: int, seed: int) -> Iterator[NDArray[np.uint8]]:
    """How often each word's image is drawn, with replacement: blocks of [R, Z]."""
    _, image_Z = np.unique(np.asarray(images), return_inverse=True)
    count, rng = int(image_Z.max()) + 1, np.random.default_rng(seed)
    step = max(1, _CELLS // len(image_Z))
    for start in range(0, resamples, step):
        rows = min(step, resamples - start)
        drawn = rng.multinomial(count, np.full(count, 1 / count), size=rows).clip(max=255)
        yield drawn.astype(np.uint8)[:, image_Z]


@dataclasses.dataclass(frozen=True)
class Calibration:
    """Bins of equally many words: mean risk, share that is hallucinated, number, and mean gap."""

    risk: tuple[float, ...]
    share: tuple[float, ...]
    count: tuple[int, ...]
    error: float


def calibration(risks: ArrayLike, labels: ArrayLike, bins: int = 10) -> Calibration:
    """Does a risk of 30 % mean three of ten? `error`: expected calibration error, by words.

    Risks 0.1 and 0.3 with none hallucinated (gap 0.2), 0.6 and 0.8 with both (gap 0.3):

    >>> bins = calibration([0.1, 0.3, 0.6, 0.8], [0, 0, 1, 1], bins=2)
    >>> bins.share, round(bins.error, 4)
    ((0.0, 1.0), 0.25)
    """
    risks_Z, labels_Z = np.asarray(risks, dtype=np.float64), np.asarray(labels, dtype=np.float64)
    parts = [p for p in np.array_split(np.argsort(risks_Z, kind="stable"), bins) if len(p)]
    risk, share = ([float(values[p].mean()) for p in parts] for values in (risks_Z, labels_Z))
    count = [len(p) for p in parts]
    gap = np.average(np.abs(np.subtract(risk, share)), weights=count) if parts else np.nan
    return Calibration(tuple(risk), tuple(share), tuple(count), float(gap))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Detector:
    """Risk of a word: logistic(intercept + sum_f weight_f * (x_f - mean_f) / scale_f)."""

    features: tuple[str, ...]
    means: tuple[float, ...]
    scales: tuple[float, ...]
    weights: tuple[float, ...]
    intercept: float
    strength: float

    def risk(self, features: Mapping[str, ArrayLike]) -> Floats:
        """Probability that each word is hallucinated, [Z]; InputError names a missing feature.

        Two scales below the mean with weight -1: 1 / (1 + exp(-2)).

        >>> fields = {"features": ("mass",), "means": (0.5,), "scales": (0.1,), "weights": (-1.0,)}
        >>> detector = Detector(**fields, intercept=0.0, strength=1.0)
        >>> detector.risk({"mass": [0.5, 0.3]}).round(3).tolist()
        [0.5, 0.881]
        """
        missing = ", ".join(name for name in self.features if name not in features)
        if missing:
            raise InputError(f"the detector needs {missing}; given: {', '.join(features)}")
        x_ZF = np.stack([np.asarray(features[name], dtype=np.float64) for name in self.features], 1)
        logits = self.intercept + ((x_ZF - self.means) / self.scales) @ np.array(self.weights)
        return np.exp(-np.logaddexp(0, -logits))


def too_few(labels: ArrayLike, images: ArrayLike) -> str:
    """Why these words are too few to fit or to judge a detector; "" when they are enough."""
    labels_Z, images_Z = np.asarray(labels), np.asarray(images)
    for name, value in (("hallucinated", 1), ("grounded", 0)):
        words = int((labels_Z == value).sum())
        pictures = len(set(images_Z[labels_Z == value].tolist()))
        if words < FEWEST_WORDS or pictures < FEWEST_IMAGES:
            fewest = f"{FEWEST_WORDS} in {FEWEST_IMAGES} are the fewest"
            return f"{words} {name} object words in {pictures} images; {fewest}"
    return ""


def fit(features: Mapping[str, ArrayLike], labels: ArrayLike, images: ArrayLike) -> Detector:
    """Logistic regression with the strength that predicts left-out images best (log loss)."""
    from sklearn.linear_model import LogisticRegressionCV
    from sklearn.model_selection import StratifiedGroupKFold
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    assert not too_few(labels, images)
    labels_Z = np.asarray(labels, dtype=int)
    x_ZF = np.stack([np.asarray(values, dtype=np.float64) for values in features.values()], 1)
    # Words of one image are alike: folds are of images, or the left-out ones would not be unseen.
    folds = list(StratifiedGroupKFold(FOLDS).split(x_ZF, labels_Z, np.asarray(images)))
    # To the optimum, whichever strength the path came from.
    options = {"tol": 1e-8, "max_iter": 1000, "use_legacy_attributes": False}
    regression = LogisticRegressionCV(
        Cs=STRENGTHS, l1_ratios=(0,), cv=folds, scoring="neg_log_loss", **options
    )
    scaler, model = make_pipeline(StandardScaler(), regression).fit(x_ZF, labels_Z)
    return Detector(
        features=tuple(features),
        means=tuple(scaler.mean_.tolist()),
        scales=tuple(scaler.scale_.tolist()),
        weights=tuple(model.coef_[0].tolist()),
        intercept=float(model.intercept_[0]),
        strength=float(np.ravel(model.C_)[0]),
    )


def write(
    path: Path, variants: Mapping[str, Detector], fitted_on: Mapping[str, str | int], note: str = ""
) -> None:
    """The detectors as JSON, readable by people and by any program: no pickle.

    `fitted_on`: what they were fitted on; `note`: why there are none.
    """
    content: dict[str, Any] = {"version": VERSION, "fitted_on": dict(fitted_on), "note": note}
    content["variants"] = {name: dataclasses.asdict(d) for name, d in variants.items()}
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def read(path: Path) -> dict[str, Detector]:
    """The detectors that `write` left, by variant; none where it says why there are none.

    InputError in one line for another content.
    """
    where = one_line(str(path))
    try:
        return parsed(path.read_bytes(), where)
    except OSError as error:
        raise InputError(f"{where}: is no detector: {one_line(str(error), 100)}") from None


def parsed(text: bytes, where: str) -> dict[str, Detector]:
    """`read` of a file's content; `where` it is from."""
    try:
        content = json.loads(text)
        require(content["version"] == VERSION, where, f"is not of version {VERSION}")
        return {name: _detector(one) for name, one in content["variants"].items()}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(f"{where}: is no detector: {one_line(str(error), 100)}") from None


def _detector(content: Mapping[str, Any]) -> Detector:
    names = tuple(str(name) for name in content["features"])
    rows = {key: tuple(map(float, content[key])) for key in ("means", "scales", "weights")}
    if {len(row) for row in rows.values()} != {len(names)}:
        raise ValueError("its features, means, scales and weights are not equally many")
    return Detector(
        features=names,
        **rows,
        intercept=float(content["intercept"]),
        strength=float(content["strength"]),
    )
