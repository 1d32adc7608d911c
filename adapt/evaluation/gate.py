"""The gate: may a tuned model take the champion's place? A pure function of scores and rules.

Every rule of `adapt/evaluation/rules.py` has to hold, and tells in one sentence what it saw. What
changes is judged on the same images: the interval of a change is a paired bootstrap over them. By
default (params.yaml) there are three rules:
1. fewer answers hallucinate (Hal), by a margin that the whole 95 % interval supports: it is the
   claim;
2. Cover, the share of true objects that answers mention, falls by no more than a tolerance: silence
   is no cure;
3. attention does not decay faster: the late/early ratio of visual mass falls by no more than a
   tolerance.
What was not measured, or not on the same images, does not pass.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Literal

from adapt.evaluation.counts import Counted
from adapt.evaluation.rules import Rule, Rules
from adapt.metrics import bootstrap
from adapt.metrics.bootstrap import LEVEL, Interval
from adapt.metrics.measures import Measure, measure, parts

ROUNDING = 1e-9  # a loss of exactly the tolerance is allowed, whatever floats make of it


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Scores:
    """What was measured of one model, by metric: values in their units, and counts by image."""

    values: Mapping[str, float]
    counted: Mapping[str, Counted]


@dataclasses.dataclass(frozen=True)
class Decision:
    """Whether to promote, and one sentence per rule, whether it held or not."""

    promote: bool
    reasons: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Draws:
    """How intervals are drawn."""

    resamples: int
    seed: int


def decide(
    candidate: Scores, champion: Scores, rules: Rules, labels: Mapping[str, str], draws: Draws
) -> Decision:
    """Judge `candidate` by every rule; `labels` has the benchmark behind each label of a rule."""
    verdicts = []
    for key, rule in rules.named.items():
        of = measure(key, labels)
        beside = measure(of.beside, labels) if of.beside else None
        case = _Case(key, of, beside, rule, candidate, champion)
        obstacle = case.obstacle()
        verdicts.append((False, obstacle) if obstacle else case.verdict(draws))
    sentences = tuple(f"{'passed' if held else 'failed'}: {text}" for held, text in verdicts)
    return Decision(all(held for held, _ in verdicts), sentences)


@dataclasses.dataclass(frozen=True)
class _Case:
    """One rule before the scores of the two models."""

    key: str
    of: Measure
    beside: Measure | None
    rule: Rule
    candidate: Scores
    champion: Scores

    @property
    def sides(self) -> dict[str, Scores]:
        """The models that the rule is about: a fixed limit asks nothing of the champion."""
        both = {"candidate": self.candidate, "champion": self.champion}
        return both if self.rule.compares else {"candidate": self.candidate}

    def obstacle(self) -> str:
        """Why the rule cannot be judged; "" when it can."""
        for who, scores in self.sides.items():
            there = scores.counted if self.of.resampled else scores.values
            if self.key not in there:
                return f"{self.of.name} was not measured of the {who}: {self._lacks()}."
            for key, of in ((self.key, self.of), (self.of.beside, self.beside)):
                value = scores.values.get(key, 0.0)
                if of and not math.isfinite(value):
                    return f"the {who}'s {of.name} is not a number ({value})."
        if self.of.resampled and self.rule.compares:
            new, old = (scores.counted[self.key].images for scores in self.sides.values())
            if new != old:
                shared = len(set(new) & set(old))
                sizes = f"{len(new)} images and the champion on {len(old)}"
                tested = f"the candidate was tested on {sizes}, of which {shared} are the same"
                return f"{self.of.name}: {tested}; only results on the same images can be compared."
        return ""

    def _lacks(self) -> str:
        label, _ = parts(self.key)
        if label:
            return f"no answer to {label} counts for it; look at its entry in answer.benchmarks"
        others = "or put a rule on something else, such as a benchmark of answer.benchmarks"
        return f"the test split has no {self.of.needs}; add some, {others}"

    def verdict(self, draws: Draws) -> tuple[bool, str]:
        """Whether the rule holds, and what was seen."""
        # 1. What is judged: the change, or under a fixed limit the value itself, with its interval.
        seen = self._interval(draws) if self.of.resampled else self._point()
        side, bound = self._bound()
        # 2. The measured value has to keep to the bound, or with a confidence its whole interval.
        end = seen.point
        if self.rule.confidence:
            end = seen.high if side == "below" else seen.low
        room = bound - end if side == "below" else end - bound
        # A drop or a rise has to exceed what it is asked for; a tolerance may be used up.
        held = room > 0 if self.rule.demand[0] in ("drop", "rise") else room >= -ROUNDING
        return held, f"{self._seen(seen)}; {self._demanded(held, side, bound)}.{self._beside()}"

    def _interval(self, draws: Draws) -> Interval:
        new, options = self.candidate.counted[self.key], (draws.resamples, draws.seed, self._level)
        if self.rule.compares:
            old = self.champion.counted[self.key]
            drawn = bootstrap.difference(new.above, new.below, old.above, old.below, *options)
        else:
            drawn = bootstrap.interval(new.above, new.below, *options)
        return Interval(*(self.of.whole * end / 100 for end in drawn))

    def _point(self) -> Interval:
        """What has no interval is as wide as itself."""
        value = self._value(self.candidate)
        value -= self._value(self.champion) if self.rule.compares else 0.0
        return Interval(value, value, value)

    @property
    def _level(self) -> float:
        return self.rule.confidence or LEVEL

    def _value(self, scores: Scores) -> float:
        if self.of.resampled:
            return self.of.whole * scores.counted[self.key].ratio
        return scores.values[self.key]

    def _bound(self) -> tuple[Literal["below", "above"], float]:
        """Where the change, or under a fixed limit the value, has to lie."""
        demand, limit = self.rule.demand
        if demand == "max_loss":
            demand, limit = ("max", limit) if self.of.better == "lower" else ("min", -limit)
        side: Literal["below", "above"] = "below" if demand in ("drop", "max") else "above"
        return side, -limit if demand == "drop" else limit

    def _seen(self, seen: Interval) -> str:
        """Before and after with the change, or the value alone; with the interval if it has one."""
        new = self.of.shown(self._value(self.candidate))
        digits, sign = self.of.digits, "+" if self.rule.compares else ""
        text = f"{self.of.name} {new}"
        if self.rule.compares:
            text = f"{self.of.name} {self.of.shown(self._value(self.champion))} -> {new}"
        if not self.of.resampled:
            return f"{text} ({seen.point:+.{digits}f})" if self.rule.compares else text
        if self.rule.compares:
            text += f", {self._direction(seen.point)}"
        ends = " to ".join(f"{end:{sign}.{digits}f}" for end in (seen.low, seen.high))
        images = len(self.candidate.counted[self.key].images)
        of = f", {images} images" if self.rule.confidence else ""
        return f"{text} ({100 * self._level:g} % interval {ends}{of})"

    def _direction(self, change: float) -> str:
        if abs(change) < 0.5 * 10**-self.of.digits:
            return "unchanged"
        return f"{'up' if change > 0 else 'down'} {self.of.points(abs(change))}"

    def _demanded(self, held: bool, side: str, bound: float) -> str:
        demand, limit = self.rule.demand
        if self.rule.confidence:
            lies = "lies" if held else "has to lie"
            return f"the whole interval {lies} {side} {bound or 0:.{self.of.digits}f}"
        worse = "rise" if self.of.better == "lower" else "fall"
        fell, rose = ("fell", "rose") if held else ("has to fall", "has to rise")
        return {
            "drop": f"it {fell} by more than {self.of.points(limit)}",
            "rise": f"it {rose} by more than {self.of.points(limit)}",
            "max_loss": f"it may {worse} by up to {self.of.points(limit)}",
            "max": f"it may be at most {self.of.shown(limit)}",
            "min": f"it has to be at least {self.of.shown(limit)}",
        }[demand]

    def _beside(self) -> str:
        if not self.beside:
            return ""
        values = [scores.values.get(self.of.beside) for scores in reversed(self.sides.values())]
        shown = [self.beside.shown(value) for value in values if value is not None]
        return f" {self.beside.name} {' -> '.join(shown)}." if shown else ""
