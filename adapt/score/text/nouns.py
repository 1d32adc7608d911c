"""The nouns of a text as AMBER finds them, and as they are meant.

`nouns` is the official chain (github.com/junyangwang0410/AMBER, inference.py): tokenize, tag, keep
what is tagged NN, NNS, NNP or NNPS, lemmatise as a noun. Its quirks, all of which cost mentions: a
capital stays ("Person" is no "person"), WordNet keeps "men" and makes "vas" of "vases", four of
AMBER's own words ("sunglasses") can never come out, and "no dog" mentions a dog. `stated` mends
them.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from adapt.score.text import english
from adapt.score.text.negation import negated

# AMBER's vocabulary has "leave" for leaves.
_IRREGULAR = {"men": "man", "leaf": "leave", "leaves": "leave"}


@dataclass(frozen=True)
class Lemmas:
    """Surface form to lemma: a table, which is then all there is, or WordNet where it is None."""

    table: Mapping[str, str] | None
    name: str

    def of(self, word: str) -> str | None:
        """The lemma, or None for a word that is not in the table.

        >>> lemmas = Lemmas({"dogs": "dog"}, "one form")
        >>> lemmas.of("dogs"), lemmas.of("cats")
        ('dog', None)
        """
        return english.lemma(word, "n") if self.table is None else self.table.get(word)


WORDNET = Lemmas(None, english.LEMMATIZER)


def nouns(text: str, lemmas: Lemmas) -> list[str]:
    """Lemmas of the nouns in order, repeats included; with a table, of those that it has.

    "A dog chases two cats near the men." gives dog, cat and, as WordNet has it, men.
    """
    words = english.words(text)
    tagged = zip(words, english.tags(words), strict=True)
    bases = [lemmas.of(word) for word, tag in tagged if tag[:2] == "NN"]
    return [base for base in bases if base is not None]


def stated(text: str, lemmas: Lemmas, vocabulary: Mapping[str, str]) -> list[str]:
    """The words of `vocabulary` (lower case to its own spelling) that the text says are there.

    "There is no dog, but Men with sunglasses." gives man and sunglasses.
    """
    words = [word.lower() for word in english.words(text)]
    rows = zip(words, english.tags(words), negated(words), strict=True)
    there = [word for word, tag, under in rows if tag[:2] == "NN" and not under]
    names = [_meant(word, lemmas, vocabulary) for word in there]
    return [name for name in names if name is not None]


def _meant(word: str, lemmas: Lemmas, vocabulary: Mapping[str, str]) -> str | None:
    """The vocabulary's word for a lower-case noun, singular or plural.

    >>> own = {name: name for name in ("man", "vase", "earrings", "glass")}
    >>> lemmas = Lemmas({"glasses": "glass"}, "one form")
    >>> [_meant(word, lemmas, own) for word in ("men", "vases", "earring", "glasses", "dog")]
    ['man', 'vase', 'earrings', 'glass', None]
    """
    base, irregular = lemmas.of(word) or word, _IRREGULAR.get(word, word)
    forms = (word, base, irregular, word.removesuffix("s"), f"{word}s")
    return next((vocabulary[form] for form in forms if form in vocabulary), None)
