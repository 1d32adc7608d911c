"""How good the alarm of a served model is in production, once people have labelled some answers.

The log (`adapt/watching/log.py`) has the risk of every answer and token; the labels say of words,
or of whole answers, whether they were hallucinated:

    {"id": "chatcmpl-...", "start": 17, "hallucinated": true}     the object named at that character
    {"id": "chatcmpl-...", "hallucinated": false}                 the answer

`start` is that of `risk.named` in the server's reply. Printed are AUROC, average precision and the
words caught, with 95 % intervals from a bootstrap over pictures, and the calibration: of risks
around 30 %, are three of ten hallucinated? `--refit` fits the detector again to labelled words,
judged on pictures that were left out, and `--register` makes it a version of the detector alone.
"""

import argparse
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from adapt import params
from adapt.metrics import detection
from adapt.metrics.bootstrap import Interval
from adapt.metrics.detection import Detector
from adapt.params import InputError
from adapt.score import rows
from adapt.score.content import named, shown
from adapt.watching import log
from adapt.watching.signals import SIGNALS

VARIANTS = {"attention": SIGNALS, "attention_probability": (*SIGNALS, "logprob")}
"""As `adapt/evaluation/early_warning.py` fits them; a test compares the two."""
RESAMPLES, SEED = 2000, 0
_YES = {"true": 1, "1": 1, "yes": 1, "false": 0, "0": 0, "no": 0}
TITLES = {"auroc": "AUROC", "ap": "average precision", "caught": "caught at 10 % warned"}


@dataclass(frozen=True)
class Labelled:
    """What was labelled, a row each: risk, label (1 hallucinated), picture, and of a word its
    features; `unknown` labels are of answers that the log does not have.
    """

    table: pd.DataFrame
    version: str
    unknown: int


def score(options: argparse.Namespace) -> dict[str, Any]:
    """What the command prints; writes and registers a new detector where that is asked for."""
    if options.register and not options.refit:
        raise InputError("--register needs --refit FILE: the detector that is registered")
    labelled = read(options.log, options.labels, dict(options.rename), options.version)
    table = labelled.table
    found: dict[str, Any] = {"labels": len(table), "version": labelled.version}
    found |= {"hallucinated": int(table.label.sum()), "unknown": labelled.unknown}
    found |= judged(table.dropna(subset=["risk"]))
    if options.refit:
        found |= refitted(labelled, options)
    return found


def read(place: str, labels: Path, rename: Mapping[str, str], version: str = "") -> Labelled:
    """The labelled words and answers of one version, with what the log has of them."""
    logged = log.opened(place).drop_duplicates("id")
    records: list[dict[str, Any]] = logged.to_dict("records")  # type: ignore[assignment]
    answers = dict(zip(logged.id.astype(str), records, strict=True))
    found, seen, unknown = list[dict[str, Any]](), dict[tuple[str, int | None], str](), 0
    for row in rows.read(labels, rename):
        identity = row.id("id")
        start = row.whole("start") if row.has("start") else None
        if (identity, start) in seen:
            raise row.error(f"labels what {seen[identity, start]} has labelled")
        seen[identity, start] = row.where
        label = _label(row)
        if identity not in answers:
            unknown += 1
            continue
        found.append(_joined(answers[identity], row, start) | {"label": label, "id": identity})
    if not found:
        raise InputError(f"{named(labels)}: no label is of an answer of {place}")
    table = pd.DataFrame(found)
    table = table[table.version == version] if version else table
    if table.empty:
        raise InputError(f"{named(labels)}: no label is of an answer of version {shown(version)}")
    versions = sorted(set(table.version))
    if len(versions) > 1:
        several = ", ".join(map(shown, versions[:5]))
        raise InputError(f"{named(labels)}: labels answers of versions {several}; say --version")
    return Labelled(table.reset_index(drop=True), versions[0], unknown)


def _label(row: rows.Row) -> int:
    value = row.get("hallucinated")
    known = _YES.get(str(value).strip().lower().removesuffix(".0"))
    if known is None:
        raise row.error(f"'hallucinated' is {shown(value)}; allowed: {', '.join(_YES)}")
    return known


def _joined(answer: Mapping[str, Any], row: rows.Row, start: int | None) -> dict[str, Any]:
    """What the log has of a word, or of a whole answer."""
    about = {"version": str(answer["version"] or ""), "picture": answer["picture"] or answer["id"]}
    if start is None:
        return about | {"risk": answer["risk"], "word": False}
    ends = answer["token_end"]
    # The first token that reaches past the word's first letter, to which its space belongs.
    place = -1 if ends is None else int(np.searchsorted(ends, start, side="right"))
    if ends is None or place >= len(ends):
        raise row.error(f"the answer has no token at character {start}")
    names = ("risk", *VARIANTS["attention_probability"])
    return about | {"word": True} | {name: _at(answer[f"token_{name}"], place) for name in names}


def _at(values: Any, place: int) -> float:
    return float(values[place]) if values is not None and place < len(values) else math.nan


def judged(table: pd.DataFrame) -> dict[str, Any]:
    """The measures of the risks that were given, or why there are none."""
    if problem := detection.too_few(table.label, table.picture):
        return {"problem": f"too few to judge: {problem}"}
    scores = {"risk": table.risk.to_numpy(float)}
    words = table.label.to_numpy(int), table.picture.to_numpy(str)
    report = detection.compare(scores, *words, RESAMPLES, SEED)["risk"]
    bins = detection.calibration(table.risk, table.label)
    parts = zip(bins.risk, bins.share, bins.count, strict=True)
    return {
        **{name: _shown(report[name].interval()) for name in TITLES},
        "calibration_error": round(bins.error, 6),
        "calibration": [{"risk": r, "hallucinated": s, "labels": n} for r, s, n in parts],
    }


def _shown(interval: Interval) -> list[float]:
    return [round(float(value), 6) for value in interval]


# ---- fitting again -------------------------------------------------------------------------------


def refitted(labelled: Labelled, options: argparse.Namespace) -> dict[str, Any]:
    """Fit the detector to the labelled words, write it, and register it where that is asked for."""
    table = labelled.table
    features = VARIANTS["attention_probability"]
    words = table[table.word].reindex(columns=list(dict.fromkeys([*table.columns, *features])))
    words = words.dropna(subset=list(features)).reset_index(drop=True)
    if problem := detection.too_few(words.label, words.picture):
        raise InputError(f"{named(options.labels)}: too few labelled words to fit to: {problem}")
    variants = {name: _fit(words, of) for name, of in VARIANTS.items()}
    pictures = words.picture.nunique()
    source: dict[str, str | int] = {"version": labelled.version, "words": len(words)}
    source |= {"pictures": pictures, "labels": options.labels.name}
    try:
        detection.write(options.refit, variants, source)
    except OSError as error:
        raise InputError(f"{options.refit}: {error.strerror}") from None
    found: dict[str, Any] = {"refit": str(options.refit), "refit_words": len(words)}
    found |= {f"refit_{name}": value for name, value in left_out(words).items()}
    if options.register:
        found["registered"] = _registered(labelled.version, options.refit, len(words), pictures)
    return found


def _fit(words: pd.DataFrame, features: Sequence[str]) -> Detector:
    columns = {name: words[name].to_numpy(float) for name in features}
    return detection.fit(columns, words.label, words.picture)


def left_out(words: pd.DataFrame) -> dict[str, list[float]]:
    """AUROC of detectors fitted again, each word judged by one that has not seen its picture, and
    the paired difference to the risks that were given; nothing where a part is too small to fit to.
    """
    from sklearn.model_selection import StratifiedGroupKFold

    risks: NDArray[np.float64] = np.full(len(words), np.nan)
    folds = StratifiedGroupKFold(detection.FOLDS).split(words, words.label, words.picture)
    for seen, unseen in folds:
        part = words.iloc[seen]
        if detection.too_few(part.label, part.picture):
            return {}
        detector = _fit(part, VARIANTS["attention"])
        columns = {name: words[name].to_numpy(float)[unseen] for name in detector.features}
        risks[unseen] = detector.risk(columns)
    given = words.risk.to_numpy(float)
    scores = {"refit": risks} | ({} if np.isnan(given).any() else {"given": given})
    labels = words.label.to_numpy(int), words.picture.to_numpy(str)
    report = detection.compare(scores, *labels, RESAMPLES, SEED)
    found = {"auroc": _shown(report["refit"]["auroc"].interval())}
    if "given" in report:
        lead = report["refit"]["auroc"].minus(report["given"]["auroc"])
        found["auroc_above_given"] = _shown(lead)
    return found


def _registered(version: str, path: Path, words: int, pictures: int) -> str:
    """Register the detector in this workspace's registry; returns what it is there, in words."""
    from adapt.registry import detectors
    from adapt.tracking.store import Store, TrackingConfig

    root = Path.cwd()
    config = params.load(params.read(root / "params.yaml"), "tracking", TrackingConfig)
    tags = {"adapt.words": str(words), "adapt.pictures": str(pictures)}
    content = path.read_text(encoding="utf-8")
    number = detectors.register(Store(root, config), content, version, tags)
    return f"{detectors.name_of(config.model)} version {number}, for version {version}"


# ---- for a reader --------------------------------------------------------------------------------


def table(found: Mapping[str, Any]) -> str:
    """The result in lines."""
    kinds = f"{found['labels']} labels of version {found['version'] or '?'}"
    lines = [f"{kinds}, {found['hallucinated']} hallucinated"]
    if found["unknown"]:
        lines.append(f"{found['unknown']} labels are of answers that the log does not have")
    if "problem" in found:
        lines.append(found["problem"])
    for key, title in TITLES.items():
        if key in found:
            lines.append(f"{title:24} {_words(found[key])}")
    if "calibration" in found:
        lines.append(f"{'calibration error':24} {found['calibration_error']:.3f}")
        lines += [
            f"  risk {one['risk']:.2f}: {100 * one['hallucinated']:3.0f} % of {one['labels']}"
            for one in found["calibration"]
        ]
    if "refit" in found:
        lines.append(f"fitted again to {found['refit_words']} words: {found['refit']}")
    for key, title in (("auroc", "AUROC, left out"), ("auroc_above_given", "above the former")):
        if f"refit_{key}" in found:
            lines.append(f"{title:24} {_words(found[f'refit_{key}'])}")
    if "registered" in found:
        lines.append(f"registered: {found['registered']}")
    return "\n".join(lines)


def _words(interval: Sequence[float]) -> str:
    point, low, high = interval
    return f"{point:.3f} [{low:.3f}, {high:.3f}]"
