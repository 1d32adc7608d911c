"""Lemmas: WordNet's `morphy` as NLTK's `WordNetLemmatizer` applies it, from the index and exception
files alone.

A form is looked up as it is, then with each ending replaced
(https://wordnet.princeton.edu/documentation/morphy7wn); of what WordNet knows, the shortest wins
and the form itself wins a tie. So "men" stays "men", which WordNet has, and "vases" becomes "vas".
NLTK reads all of WordNet for this; the index alone takes a tenth of the time and memory.
"""

from functools import lru_cache
from typing import Literal

from adapt.params import InputError

Part = Literal["n", "v", "a", "r"]

_FILES: dict[Part, str] = {"n": "noun", "v": "verb", "a": "adj", "r": "adv"}
_ENDINGS: dict[Part, str] = {  # old>new
    "n": "s> ses>s ves>f xes>x zes>z ches>ch shes>sh men>man ies>y",
    "v": "s> ies>y es>e es> ed>e ed> ing>e ing>",
    "a": "er> est> er>e est>e",
    "r": "",
}


class Lexicon:
    """The known lemmas of one part of speech, and its irregular forms."""

    def __init__(self, part: Part, index: str, exceptions: str) -> None:
        """The text of `index.noun` (lines that begin with a blank are its licence) and of
        `noun.exc`.
        """
        self._known = {
            line.partition(" ")[0] for line in index.splitlines() if not line.startswith(" ")
        }
        self._irregular = {
            line.split()[0]: line.split()[1:] for line in exceptions.splitlines() if line.strip()
        }
        self._endings = [ending.split(">") for ending in _ENDINGS[part].split()]

    def lemma(self, word: str) -> str:
        """The shortest known base form; the word itself where there is none.

        >>> nouns = Lexicon("n", "dog n 1\\nmen n 1\\nman n 1\\ngoose n 1", "geese goose")
        >>> [nouns.lemma(word) for word in ("dogs", "men", "geese", "Dogs", "frisbees")]
        ['dog', 'men', 'goose', 'Dogs', 'frisbees']
        """
        regular = [word[: -len(old)] + new for old, new in self._endings if word.endswith(old)]
        forms = [word, *self._irregular.get(word, regular)]
        return min((form for form in forms if form in self._known), key=len, default=word)


def load(part: Part) -> Lexicon:
    """One part of speech of the WordNet in NLTK_DATA, read once; `InputError` where it is missing."""
    import nltk

    return _load(part, tuple(nltk.data.path))


@lru_cache(maxsize=len(_FILES))
def _load(part: Part, path: tuple[str, ...]) -> Lexicon:
    return Lexicon(part, _read(f"index.{_FILES[part]}"), _read(f"{_FILES[part]}.exc"))


def _read(name: str) -> str:
    from nltk.data import find

    try:
        with find(f"corpora/wordnet/{name}").open() as file:
            return file.read().decode("utf-8")
    except LookupError:
        raise InputError(
            "NLTK_DATA: WordNet is missing; run `python -m nltk.downloader wordnet`"
        ) from None
