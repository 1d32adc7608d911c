"""The gate: may a tuned model take the champion's place? A pure function of scores and rules.

Three rules, all of which must hold, and each tells in one sentence what it saw:
1. fewer answers hallucinate (Hal), by a margin that a paired bootstrap over images supports;
2. Cover, the share of true objects that answers mention, falls by no more than a tolerance: silence
   is no cure;
3. attention does not decay faster: the late/early ratio of visual mass falls by no more than a
   tolerance.
Rule 1 judges the whole 95 % interval because it is the claim; rules 2 and 3 are tolerances on the
measured value.
"""

import dataclasses
import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from adapt.metrics import bootstrap
from adapt.metrics.bootstrap import Interval
from adapt.params import NonNegative, Settings

if TYPE_CHECKING:
    import pandas as pd

COUNTS = ("hallucinated", "responses", "covered", "truth")  # the arrays of `Scores`
ROUNDING = 1e-9  # a loss of exactly the tolerance is allowed, whatever floats make of it


class Rules(Settings):
    """Section `gate` of params.yaml, in points and in units of the ratio."""

    min_hal_drop: NonNegative
    max_cover_drop: NonNegative
    max_attention_drop: NonNegative


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Scores:
    """How one model described the test images; arrays have an entry for each of `images`."""

    images: tuple[str, ...]
    hallucinated: np.ndarray  # answers that mention something absent
    responses: np.ndarray  # answers
    covered: np.ndarray  # true objects that the answers mention
    truth: np.ndarray  # true objects
    chair_i: float  # percent of the mentioned objects that are absent
    late_early: float  # visual mass in the last third of an answer over that in the first third

    def __post_init__(self) -> None:
        expected = f"expected one entry for each of {len(self.images)} images"
        for name in COUNTS:
            if getattr(self, name).shape != (len(self.images),):
                raise ValueError(f"Scores.{name}: {expected}")
        if (self.hallucinated > self.responses).any() or (self.covered > self.truth).any():
            raise ValueError("Scores: more hallucinated than answers, or more covered than true")


@dataclasses.dataclass(frozen=True)
class Decision:
    """Whether to promote, and one sentence per rule, whether it held or not."""

    promote: bool
    reasons: tuple[str, ...]


def decide(
    candidate: Scores, champion: Scores, rules: Rules, resamples: int, seed: int
) -> Decision:
    """Judge `candidate` on the champion's images; what cannot be compared is not promoted."""
    obstacle = _obstacle(candidate, champion)
    if obstacle:
        return Decision(False, (f"failed: {obstacle}",))
    verdicts = (
        _hallucination(candidate, champion, rules.min_hal_drop, resamples, seed),
        _cover(candidate, champion, rules.max_cover_drop, resamples, seed),
        _attention(candidate, champion, rules.max_attention_drop),
    )
    sentences = tuple(f"{'passed' if held else 'failed'}: {text}" for held, text in verdicts)
    return Decision(all(held for held, _ in verdicts), sentences)


def _obstacle(candidate: Scores, champion: Scores) -> str:
    """Why the two cannot be compared; "" when they can."""
    for who, scores in (("candidate", candidate), ("champion", champion)):
        if not scores.images:
            return f"the {who} described no image, so nothing can be compared."
    if candidate.images != champion.images:
        shared = len(set(candidate.images) & set(champion.images))
        sizes = f"{len(candidate.images)} images and the champion on {len(champion.images)}"
        rule = "only results on the same images can be compared."
        return f"the candidate was tested on {sizes}, of which {shared} are the same; {rule}"
    for who, scores in (("candidate", candidate), ("champion", champion)):
        if not scores.responses.sum() or not scores.truth.sum():
            images = f"the {who}'s test images have no answers or no true objects"
            return f"{images}, so there is no Hal or no Cover."
        numbers = {"CHAIR_i": scores.chair_i, "late/early ratio of visual mass": scores.late_early}
        for name, value in numbers.items():
            if not math.isfinite(value):
                return f"the {who}'s {name} is not a number ({value})."
    return ""


def _hallucination(
    new: Scores, old: Scores, margin: float, resamples: int, seed: int
) -> tuple[bool, str]:
    counts = (new.hallucinated, new.responses, old.hallucinated, old.responses)
    change = bootstrap.difference(*counts, resamples=resamples, seed=seed)
    held = -change.high > margin
    return held, (
        f"Hal {_moved(*counts, change)}, {len(new.images)} images); the whole interval"
        f" {'lies' if held else 'has to lie'} below {-margin or 0:.1f}."
        f" CHAIR_i {old.chair_i:.1f} % -> {new.chair_i:.1f} %."
    )


def _cover(
    new: Scores, old: Scores, tolerance: float, resamples: int, seed: int
) -> tuple[bool, str]:
    counts = (new.covered, new.truth, old.covered, old.truth)
    change = bootstrap.difference(*counts, resamples=resamples, seed=seed)
    held = change.point >= -tolerance - ROUNDING
    may = f"it may fall by up to {tolerance:.1f} points."
    return held, f"Cover {_moved(*counts, change)}); {may}"


def _attention(new: Scores, old: Scores, tolerance: float) -> tuple[bool, str]:
    held = new.late_early >= old.late_early - tolerance - ROUNDING
    return held, (
        f"late/early ratio of visual mass {old.late_early:.3f} -> {new.late_early:.3f}"
        f" ({new.late_early - old.late_early:+.3f}); it may fall by up to {tolerance:.3f}."
    )


def _moved(
    new: np.ndarray, of_new: np.ndarray, old: np.ndarray, of_old: np.ndarray, change: Interval
) -> str:
    """Before and after in percent, and the change with its interval, whose bracket stays open."""
    before, after = 100 * old.sum() / of_old.sum(), 100 * new.sum() / of_new.sum()
    points = abs(change.point)
    direction = f"{'up' if change.point > 0 else 'down'} {points:.1f} points"
    moved = f"{before:.1f} % -> {after:.1f} %, {direction if points >= 0.05 else 'unchanged'}"
    return f"{moved} (95 % interval {change.low:+.1f} to {change.high:+.1f}"


def scores_from(responses: "pd.DataFrame | Path", metrics: Mapping[str, float], arm: str) -> Scores:
    """Scores of one arm from the judged answers (descriptions only) and metrics of `evaluate`."""
    import pandas as pd

    table = pd.read_parquet(responses) if isinstance(responses, Path) else responses
    for key in (f"{arm}/chair_i", f"{arm}/mass_late_early"):
        if key not in metrics:
            raise ValueError(f"metrics of evaluate have no {key}")
    rows = table[(table["arm"] == arm) & (table["kind"] == "describe")]
    counts = rows[["hallucinated", "covered", "truth"]].map(len).assign(responses=1)
    counts["hallucinated"] = counts["hallucinated"].gt(0).astype(int)
    total = counts.groupby(rows["image_id"].astype(str), sort=True).sum()
    return Scores(
        images=tuple(total.index),
        **{name: total[name].to_numpy(dtype=np.int64) for name in COUNTS},
        chair_i=float(metrics[f"{arm}/chair_i"]),
        late_early=float(metrics[f"{arm}/mass_late_early"]),
    )
