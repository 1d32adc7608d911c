"""Every metric by name: what a sentence calls it, its unit, and which way is better.

A metric of the test split has a plain name, `hal`; one of a benchmark is `<label>.<metric>`, as
`amber.hal`, where the label is that of `answer.benchmarks` in params.yaml. All rates are percent
here, also where a benchmark's own program prints fractions.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from itertools import product
from typing import Literal

OBJECTS = "descriptions of pictures whose objects are known"
TARGETS = "descriptions with a list of likely hallucinations (column absent)"
YES_NO = "yes/no questions (kind exists)"
COLOURS = "colour questions (kind colour) with a vocabulary of colours"
FREE = "questions that are answered in words of one's own (kind describe or other)"


@dataclass(frozen=True, kw_only=True)
class Measure:
    """How one metric is spoken of, compared and resampled.

    `needs`: what the test split has to have for it. `official`: what a benchmark's own number is
    multiplied by to be in `unit`; `hundredths`: whether its numerators are percent already.
    """

    name: str
    better: Literal["lower", "higher", ""]  # "": neither
    unit: Literal["%", ""] = "%"
    digits: int = 1
    resampled: bool = True  # a ratio of sums over images: it has intervals
    beside: str = ""  # the metric that a sentence about it tells as well
    needs: str = ""
    official: float = 1.0
    hundredths: bool = False

    @property
    def whole(self) -> float:
        """What a ratio of one is in `unit`."""
        return 100.0 if self.unit else 1.0

    @property
    def title(self) -> str:
        """Name and unit, for a row of a table."""
        return f"{self.name} {self.unit}".strip()

    def shown(self, value: float) -> str:
        """A value as a sentence says it.

        >>> SPLIT["hal"].shown(31.25), SPLIT["mass_late_early"].shown(0.6204)
        ('31.2 %', '0.620')
        """
        return f"{value:.{self.digits}f} {self.unit}".strip()

    def points(self, change: float) -> str:
        """A change as a sentence says it.

        >>> SPLIT["hal"].points(2), SPLIT["mass_late_early"].points(0.05)
        ('2.0 points', '0.050')
        """
        return f"{change:.{self.digits}f}{' points' if self.unit else ''}"


def _late_early(signal: str, better: Literal["lower", "higher"]) -> Measure:
    name = f"late/early ratio of {signal}"
    return Measure(name=name, better=better, unit="", digits=3, resampled=False, needs=FREE)


_YES_NO = {
    "accuracy": Measure(name="accuracy", better="higher"),
    "precision": Measure(name="precision", better="higher"),
    "recall": Measure(name="recall", better="higher"),
    "f1": Measure(name="F1", better="higher"),
    "yes_ratio": Measure(name="share of yes", better=""),
}
_LENGTH = Measure(name="length", better="", unit="", needs=FREE)

SPLIT: Mapping[str, Measure] = {
    "hal": Measure(name="Hal", better="lower", beside="chair_i", needs=OBJECTS),
    "chair_i": Measure(name="CHAIR_i", better="lower", needs=OBJECTS),
    "cover": Measure(name="Cover", better="higher", needs=OBJECTS),
    "cog": Measure(name="Cog", better="lower", needs=TARGETS),
    **{
        f"pope_{key}": replace(one, name=f"POPE {one.name}", needs=YES_NO)
        for key, one in _YES_NO.items()
    },
    "colour_accuracy": Measure(name="accuracy on colours", better="higher", needs=COLOURS),
    "length": replace(_LENGTH, resampled=False),
    "mass_late_early": _late_early("visual mass", "higher"),
    "focus_late_early": _late_early("focus", "higher"),
    "amc_late_early": _late_early("S_AMC", "higher"),
    "responsiveness_late_early": _late_early("responsiveness", "higher"),
    "drift_late_early": _late_early("drift", "lower"),
}
"""Metrics of the test split."""


def _amber() -> dict[str, Measure]:
    described = {
        "chair": Measure(name="CHAIR", better="lower"),
        "cover": Measure(name="Cover", better="higher"),
        "hal": Measure(name="Hal", better="lower", beside="chair"),
        "cog": Measure(name="Cog", better="lower"),
        "length": replace(_LENGTH, resampled=False),
    }
    parts = ("", "existence_", "attribute_", "state_", "number_", "action_", "relation_")
    asked = {
        f"{part}{key}": replace(_YES_NO[key], name=f"{part.replace('_', ' ')}{_YES_NO[key].name}")
        for part, key in product(parts, ("accuracy", "precision", "recall", "f1"))
    }
    score = {"amber_score": Measure(name="AMBER score", better="higher", resampled=False)}
    return described | asked | score


def _fractions(measures: Mapping[str, Measure]) -> dict[str, Measure]:
    """Of a program that prints rates as fractions."""
    return {key: replace(one, official=one.whole) for key, one in measures.items()}


_MMHAL_TYPES = (
    *("attribute", "adversarial", "comparison", "counting"),
    *("relation", "environment", "holistic", "other"),
)


def _mmhal() -> dict[str, Measure]:
    scores = {f"score_{kind}": f"score of {kind} questions" for kind in _MMHAL_TYPES}
    scores |= {"average_score": "average score"}
    rated = {
        key: Measure(name=name, better="higher", unit="", digits=2) for key, name in scores.items()
    }
    informativeness = Measure(name="informativeness", better="higher", hundredths=True)
    rate = {"hallucination_rate": Measure(name="hallucination rate", better="lower")}
    return rated | _fractions(rate) | {"informativeness": informativeness}


def _hallusion() -> dict[str, Measure]:
    names = ("aAcc", "qAcc", "fAcc", "easy_pair_acc", "hard_pair_acc")
    rates = {name: Measure(name=name, better="higher", hundredths=True) for name in names}
    plain = {
        "figure_score": Measure(name="figure score", better="higher", resampled=False),
        "yes_no_diff": Measure(name="surplus of yes", better="", resampled=False),
        "yes_no_fp": Measure(name="share of wrong yes", better="", resampled=False),
    }
    return rates | _fractions(plain)


_CHAIR = {
    "chair_s": Measure(name="CHAIR_s", better="lower", beside="chair_i"),
    "chair_i": Measure(name="CHAIR_i", better="lower"),
    "recall": Measure(name="recall of objects", better="higher"),
    "length": _LENGTH,
}
_OBJHAL = {
    "CHAIRs": Measure(name="CHAIRs", better="lower", beside="CHAIRi"),
    "CHAIRs_refine": Measure(name="CHAIRs of captions with objects", better="lower"),
    "CHAIRi": Measure(name="CHAIRi", better="lower"),
    "obj_rec": Measure(name="recall of objects", better="higher"),
    "avg_word_len": _LENGTH,
    "correct_rate": Measure(name="correct captions", better="higher", resampled=False),
    "object_correct_rate": Measure(name="correct objects", better="higher", resampled=False),
}

_ATTENTION = {key: one for key, one in SPLIT.items() if key.endswith("_late_early")}
BENCHMARKS: Mapping[str, Mapping[str, Measure]] = {
    name: {**measures, **_ATTENTION}
    for name, measures in {
        "amber": _amber(),
        "pope": _fractions(_YES_NO),
        "chair": _fractions(_CHAIR),
        "objhal": _fractions(_OBJHAL),
        "mmhal": _mmhal(),
        "hallusion": _hallusion(),
        "own": SPLIT,
    }.items()
}
"""Metrics of each benchmark by its name, under the names of its own program.

The late/early ratios are of the answers in words of one's own.
"""


def parts(key: str) -> tuple[str, str]:
    """The label of a benchmark, "" for the test split, and the metric.

    >>> parts("hal"), parts("pope-popular.f1")
    (('', 'hal'), ('pope-popular', 'f1'))
    """
    label, _, metric = key.rpartition(".")
    return label, metric


def measure(key: str, labels: Mapping[str, str]) -> Measure:
    """The measure of `hal` or `amber.hal`; `labels` has the benchmark behind each label.

    KeyError for a label or a metric that is not known.

    >>> measure("pope-popular.f1", {"pope-popular": "pope"}).name
    'F1 on pope-popular'
    """
    label, metric = parts(key)
    if not label:
        return SPLIT[metric]
    found = BENCHMARKS[labels[label]][metric]
    beside = found.beside and f"{label}.{found.beside}"
    return replace(found, name=f"{found.name} on {label}", beside=beside, needs="")


def unmeasured(metrics: Iterable[str]) -> dict[str, list[str]]:
    """What the test split has to have for the metrics that are not there: need -> their names.

    >>> measured = {key for key in SPLIT if not key.startswith("pope_")}
    >>> unmeasured(measured)[YES_NO][-2:]
    ['POPE F1', 'POPE share of yes']
    """
    there, missing = set(metrics), dict[str, list[str]]()
    for key, one in SPLIT.items():
        if key not in there:
            name = "late/early ratios" if key in _ATTENTION else one.name
            missing.setdefault(one.needs, []).append(name)
    return {need: list(dict.fromkeys(names)) for need, names in missing.items()}
