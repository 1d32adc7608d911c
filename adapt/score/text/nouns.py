"""The nouns of a text as AMBER finds them (github.com/junyangwang0410/AMBER, inference.py), and as
they are meant.

`nouns` is the official chain: tokenize, tag, keep what is tagged NN, NNS, NNP or NNPS, lemmatise as
a noun. Its quirks, all of which cost mentions: a capital stays ("Person" is no "person"), WordNet
keeps "men" and makes "vas" of "vases", four of AMBER's own words ("sunglasses") can never come out,
and "no dog" mentions a dog. `stated` mends them.

The tagger's weights, and WordNet unless a lemma table is given, come from NLTK_DATA.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from adapt.score.text import tagger, tokens, wordnet
from adapt.score.text.negation import negated

_IRREGULAR = {
    "men": "man",
    "leaf": "leave",
    "leaves": "leave",
}  # AMBER's vocabulary has "leave" for leaves


@dataclass(frozen=True)
class Lemmas:
    """Surface form to lemma: a table, which is all there is then, or WordNet where `table` is None."""

    table: Mapping[str, str] | None
    name: str

    def of(self, word: str) -> str | None:
        """The lemma, or None for a word that is not in the table.

        >>> lemmas = Lemmas({"dogs": "dog"}, "two words")
        >>> lemmas.of("dogs"), lemmas.of("cats")
        ('dog', None)
        """
        return wordnet.load("n").lemma(word) if self.table is None else self.table.get(word)


WORDNET = Lemmas(None, "WordNet")


def nouns(text: str, lemmas: Lemmas) -> list[str]:
    """Lemmas of the nouns in order, repeats included; with a table, of those that it has.

    "A dog chases two cats near the men." gives dog, cat and, as WordNet has it, men.
    """
    words = tokens.words(text)
    found = [
        lemmas.of(word)
        for word, tag in zip(words, tagger.load().tag(words), strict=True)
        if tag[:2] == "NN"
    ]
    return [lemma for lemma in found if lemma is not None]


def stated(text: str, lemmas: Lemmas, vocabulary: Mapping[str, str]) -> list[str]:
    """The words of `vocabulary` (lower case to its own spelling) that the text says are there.

    "There is no dog, but Men with sunglasses." gives man and sunglasses.
    """
    words = [word.lower() for word in tokens.words(text)]
    rows = zip(words, tagger.load().tag(words), negated(words), strict=True)
    found = [
        _meant(word, lemmas, vocabulary) for word, tag, gone in rows if tag[:2] == "NN" and not gone
    ]
    return [name for name in found if name is not None]


def _meant(word: str, lemmas: Lemmas, vocabulary: Mapping[str, str]) -> str | None:
    """The vocabulary's word for a lower-case noun, singular or plural.

    >>> own = {name: name for name in ("man", "vase", "earrings", "glass")}
    >>> [_meant(word, Lemmas({"glasses": "glass"}, ""), own) for word in ("men", "vases", "earring", "glasses", "dog")]
    ['man', 'vase', 'earrings', 'glass', None]
    """
    forms = (
        word,
        lemmas.of(word) or word,
        _IRREGULAR.get(word, word),
        word.removesuffix("s"),
        f"{word}s",
    )
    return next((vocabulary[form] for form in forms if form in vocabulary), None)
