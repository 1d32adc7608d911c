"""Hallucinated objects: CHAIR (arXiv 1809.02156), AMBER's Cover, Hal and Cog (arXiv 2311.07397).

Over all responses, in percent:

    chair_i = hallucinated mentions / mentions          repeats count
    hal     = responses with a hallucinated mention / responses   (this is CHAIR_s too)
    cover   = true objects mentioned / true objects     each once a response
    cog     = targets mentioned / targets               each once a response

Targets are likely hallucinations.

Where this differs from the official codes: AMBER adds 0.001 to every denominator, rounds to one
decimal, finds nouns with NLTK's tagger, ignores nine global "safe" words, and forgives
near-synonyms by word vectors; CHAIR counts with COCO's synonym list. Here the vocabulary file says
which words mean an object and nothing is rounded. Of a model that says nothing a ratio is 0; where
the truth has nothing to count, there is no metric.
AMBER's paper divides Cog by the mentioned objects; its code, and this, by the targets.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from adapt.metrics.mentions import Mention, find

METRICS = ("chair_i", "hal", "cover", "cog")
_OF_TRUTH = ("cover", "cog")  # shares of what the truth lists, which may be nothing


class Named(Protocol):
    """Something with a canonical object name."""

    @property
    def name(self) -> str: ...


class Truth(Protocol):
    """What is in an image, and what might be said but is not: an `adapt.data.schema.Example`."""

    @property
    def objects(self) -> Sequence[Named] | None: ...
    @property
    def absent(self) -> Sequence[str] | None: ...


class Words(Protocol):
    """The words that mean an object; `adapt.data.schema.Vocabulary` is one."""

    @property
    def objects(self) -> Mapping[str, Sequence[str]]: ...


@dataclass(frozen=True)
class Counts:
    """One response: what it mentions, in order and with repeats, against what is there."""

    mentions: tuple[Mention, ...]
    truth: tuple[str, ...]
    targets: tuple[str, ...]

    @property
    def mentioned(self) -> list[str]:
        """Names of all mentions."""
        return [mention.name for mention in self.mentions]

    @property
    def hallucinated(self) -> list[str]:
        """Names of the mentions of absent objects."""
        return [name for name in self.mentioned if name not in self.truth]

    @property
    def hallucinated_spans(self) -> list[tuple[int, int]]:
        """Where the hallucinated words are, for `mentions.marked`."""
        return [m.span for m in self.mentions if m.name not in self.truth]

    @property
    def covered(self) -> list[str]:
        """True objects that are mentioned."""
        return [name for name in self.truth if name in self.mentioned]

    @property
    def cog(self) -> list[str]:
        """Targets that are mentioned."""
        return [name for name in self.targets if name in self.mentioned]


def count(answer: str, truth: Truth, vocabulary: Words) -> Counts:
    """Compare one description with the ground truth, which has to be known."""
    assert truth.objects is not None, "nobody knows what is there"
    present = tuple(dict.fromkeys(o.name for o in truth.objects))
    targets = tuple(dict.fromkeys(truth.absent or ()))
    return Counts(find(answer, vocabulary.objects), present, targets)


def ratios(counts: Sequence[Counts]) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Numerator and denominator of each metric for each response, to be pooled or resampled.

    >>> house, bus = Mention("house", 0, 5), Mention("bus", 9, 12)
    >>> first = Counts((house, bus), ("house", "tree"), ("car",))
    >>> ratios([first, Counts((house,), ("house",), ())])["chair_i"]
    (array([1, 0]), array([2, 1]))
    """
    columns = {
        "chair_i": [(len(c.hallucinated), len(c.mentions)) for c in counts],
        "hal": [(int(bool(c.hallucinated)), 1) for c in counts],
        "cover": [(len(c.covered), len(c.truth)) for c in counts],
        "cog": [(len(c.cog), len(c.targets)) for c in counts],
    }
    assert tuple(columns) == METRICS
    tables = {name: np.array(of, dtype=np.int64).reshape(-1, 2) for name, of in columns.items()}
    return {name: (table[:, 0], table[:, 1]) for name, table in tables.items()}


def aggregate(counts: Sequence[Counts]) -> dict[str, float]:
    """chair_i, hal, cover and cog of all responses, in percent; without those that have no truth.

    Two responses. The first says house, bus, bus; there are a house and a tree, a bus and a car are
    the targets: 2 of 3 mentions hallucinated, 1 of 2 objects covered, 1 of 2 targets named. The
    second says house, and it is there.

    >>> house, bus = Mention("house", 0, 5), Mention("bus", 9, 12)
    >>> first = Counts((house, bus, bus), ("house", "tree"), ("bus", "car"))
    >>> aggregate([first, Counts((house,), ("house",), ())])
    {'chair_i': 50.0, 'hal': 50.0, 'cover': 66.66666666666667, 'cog': 50.0}
    >>> aggregate([Counts((house,), (), ())]), aggregate([])
    ({'chair_i': 100.0, 'hal': 100.0}, {})
    """
    if not counts:
        return {}
    sums = {name: tuple(int(c.sum()) for c in of) for name, of in ratios(counts).items()}
    measured = [name for name in sums if sums[name][1] or name not in _OF_TRUTH]
    return {name: percent(*sums[name]) for name in measured}


def percent(numerator: float, denominator: float) -> float:
    """100 * numerator / denominator, and 0 of nothing."""
    return 100 * numerator / denominator if denominator else 0.0
