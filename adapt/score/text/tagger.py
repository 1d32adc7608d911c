"""Parts of speech: NLTK's averaged perceptron (Collins 2002) over its own weights, five times as
fast.

The tags are those of `nltk.pos_tag`, which tests compare on every caption at hand. NLTK adds
fourteen sparse features for each word; here the weights are one matrix, and the eight features that
depend on the word and the two tags before it are added once. The features are added in NLTK's
order, so the sums are the same floating-point numbers and ties fall alike: the greatest label in
the alphabet wins.

Shapes: F features, L labels.
"""

from collections.abc import Mapping, Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from adapt.params import InputError

RESOURCE = "averaged_perceptron_tagger_eng"
_START, _END = ("-START-", "-START2-"), ("-END-", "-END2-")
_BEGINNINGS = 1 << 14  # remembered sums, 360 bytes each


class Tagger:
    """The perceptron over NLTK's weights; `weights` maps a feature to the weight of each label that
    it has one for.
    """

    def __init__(
        self, weights: Mapping[str, Mapping[str, float]], fixed: Mapping[str, str], labels: set[str]
    ) -> None:
        self._labels = sorted(labels, reverse=True)  # argmax takes the first of equals
        column = {label: i for i, label in enumerate(self._labels)}
        self._row = {feature: i for i, feature in enumerate(weights)}
        self._weights_FL = np.zeros(
            (len(weights) + 1, len(labels))
        )  # the last row is for unknown features
        for row, by_label in enumerate(weights.values()):
            self._weights_FL[row, [column[label] for label in by_label]] = list(by_label.values())
        self._fixed = fixed  # frequent words with one tag
        self._beginning = lru_cache(_BEGINNINGS)(self._sum_beginning)

    def tag(self, words: Sequence[str]) -> list[str]:
        """A Penn Treebank tag for each word; all sentences of a text at once, as AMBER and CHAIR
        do.
        """
        context = [*_START, *map(_normal, words), *_END]
        before, last = _START
        tags = []
        for i, word in enumerate(words):
            tag = self._fixed.get(word) or self._predict(word, context[i : i + 5], before, last)
            tags.append(tag)
            before, last = tag, before
        return tags

    def _predict(self, word: str, context: Sequence[str], before: str, last: str) -> str:
        """The best label of the word in the middle of five normal forms, after the tags `last` (two
        back), `before`.
        """
        second, first, here, after, beyond = context
        scores_L = self._beginning(word, here, before, last) + self._of(f"i-1 word {first}")
        scores_L += self._of(f"i-1 suffix {first[-3:]}")
        scores_L += self._of(f"i-2 word {second}")
        scores_L += self._of(f"i+1 word {after}")
        scores_L += self._of(f"i+1 suffix {after[-3:]}")
        scores_L += self._of(f"i+2 word {beyond}")
        return self._labels[int(scores_L.argmax())]

    def _sum_beginning(self, word: str, here: str, before: str, last: str) -> NDArray[np.float64]:
        """The part of the scores that needs no neighbour; not to be written to."""
        scores_L = self._of("bias") + self._of(f"i suffix {word[-3:]}")
        scores_L += self._of(f"i pref1 {word[:1]}")
        scores_L += self._of(f"i-1 tag {before}")
        scores_L += self._of(f"i-2 tag {last}")
        scores_L += self._of(f"i tag+i-2 tag {before} {last}")
        scores_L += self._of(f"i word {here}")
        scores_L += self._of(f"i-1 tag+i word {before} {here}")
        return scores_L

    def _of(self, feature: str) -> NDArray[np.float64]:
        return self._weights_FL[self._row.get(feature, -1)]


def _normal(word: str) -> str:
    """The form in which NLTK's features see a word.

    >>> [_normal(word) for word in ("Dog", "night-stand", "1984", "3rd", "-")]
    ['dog', '!HYPHEN', '!YEAR', '!DIGITS', '-']
    """
    if "-" in word and word[0] != "-":
        return "!HYPHEN"
    if word.isdigit() and len(word) == 4:
        return "!YEAR"
    return "!DIGITS" if word[:1].isdigit() else word.lower()


def load() -> Tagger:
    """The tagger over the weights in NLTK_DATA, read once; `InputError` where they are missing."""
    import nltk

    return _load(tuple(nltk.data.path))


@lru_cache(maxsize=1)
def _load(path: tuple[str, ...]) -> Tagger:
    from nltk.tag.perceptron import PerceptronTagger

    try:
        read = PerceptronTagger()
    except LookupError:
        raise InputError(
            f"NLTK_DATA: the part-of-speech tagger's weights are missing; run `python -m nltk.downloader {RESOURCE}`"
        ) from None
    return Tagger(read.model.weights, read.tagdict, read.classes)
