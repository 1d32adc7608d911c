"""Sentences and words as `nltk.word_tokenize` finds them, which is what AMBER's and CHAIR's
official codes count.

Sentences come from NLTK's Punkt (Kiss and Strunk 2006). Its English model `punkt_tab` is used where
NLTK_DATA has it; where not, the same algorithm runs without one, knowing only the words below. A
sentence's end matters for one thing: a full stop is cut off the word before it, so that "dog." is a
dog. `describe` names the one in use.

Words come from NLTK's Treebank rules. Most sentences have nothing but plain words, commas and a
full stop; for those the rules come to one split, which is ten times as fast and, as tests check,
the same.
"""

import re
from functools import lru_cache
from typing import Protocol

from adapt.params import InputError

# Lower case, without the last full stop, as Punkt keeps them. A word that ends sentences ("no",
# "in") is not here.
_ABBREVIATIONS = (
    "a.m adm aug ave bros co col corp dec dr feb fri ft gen inc jan jr lt ltd maj messrs mr mrs ms nov oct p.m ph.d "
    "prof rep sen sep sept sr st tues u.n u.s u.s.a vs wed yr"
)
# With a capital, the first open a sentence after an initial ("plan B. The"), the others after an
# abbreviation too.
_AFTER_INITIALS = (
    "a all also an and another are as at be can each for from has have his is its near next no not now on one other "
    "our people she several that their then those three to two was we what where with you"
)
_AFTER_ALL = (
    "both but furthermore he her here however if image in it many moreover most overall so some the there these they "
    "this when while yes"
)
_PLAIN = re.compile(r"[a-z]+(?:-[a-z]+)*(?:,? [a-z]+(?:-[a-z]+)*)*\.?", re.IGNORECASE | re.ASCII)
_SPLIT_WORDS = re.compile(r"\b(?:cannot|gimme|gonna|gotta|lemme|wanna)\b", re.IGNORECASE)


class Unreadable(InputError):
    """A text that NLTK gives up on, such as a million full stops; the caller adds whose it is."""


class Splitter(Protocol):
    """What Punkt's tokenizers share."""

    def tokenize(self, text: str) -> list[str]: ...


def words(text: str) -> list[str]:
    """All words and marks of a text, in order, as they are written.

    >>> words("There's a dog. It sits, tired.")
    ['There', "'s", 'a', 'dog', '.', 'It', 'sits', ',', 'tired', '.']
    """
    import nltk

    try:
        sentences = _splitter(tuple(nltk.data.path)).tokenize(text)
        return [word for sentence in sentences for word in _of_sentence(sentence)]
    except TimeoutError:
        raise Unreadable(
            f"a text of {len(text)} characters keeps NLTK's tokenizer busy too long; shorten it"
        ) from None


def describe() -> str:
    """Tokenizer and version, for a result's variant."""
    import nltk
    from nltk.tokenize import PunktTokenizer

    trained = isinstance(_splitter(tuple(nltk.data.path)), PunktTokenizer)
    return f"nltk {nltk.__version__}, {'punkt_tab' if trained else 'punkt without a model'}"


def _of_sentence(sentence: str) -> list[str]:
    """Words of one sentence; plain ones without NLTK's rules.

    >>> _of_sentence("A night-stand, and a lamp.")
    ['A', 'night-stand', ',', 'and', 'a', 'lamp', '.']
    """
    if _PLAIN.fullmatch(sentence) and not _SPLIT_WORDS.search(sentence):
        return sentence.replace(",", " ,").replace(".", " .").split(" ")
    return _rules(sentence)


def _rules(sentence: str) -> list[str]:
    from nltk.tokenize import NLTKWordTokenizer

    return NLTKWordTokenizer().tokenize(sentence)


@lru_cache(maxsize=1)
def _splitter(path: tuple[str, ...]) -> Splitter:
    from nltk.tokenize import PunktSentenceTokenizer, PunktTokenizer
    from nltk.tokenize.punkt import _ORTHO_MID_LC, _ORTHO_MID_UC, PunktParameters

    try:
        return PunktTokenizer("english")
    except LookupError:
        knowledge = PunktParameters()
        knowledge.abbrev_types = set(_ABBREVIATIONS.split())
        for word in (_AFTER_INITIALS + " " + _AFTER_ALL).split():
            knowledge.add_ortho_context(word, _ORTHO_MID_LC)
        for word in _AFTER_INITIALS.split():
            knowledge.add_ortho_context(word, _ORTHO_MID_UC)
        return PunktSentenceTokenizer(knowledge)
