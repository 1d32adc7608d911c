"""English as the official codes of AMBER, CHAIR and Object HalBench read it: with NLTK.

`words` is `nltk.word_tokenize` (Punkt's sentences, then the Treebank's rules), `tags` is
`nltk.pos_tag` (an averaged perceptron), `lemma` is `WordNetLemmatizer`. Punkt and the tagger read
all sentences of a text, so a full stop is cut off the last word of each: "dog." is a dog.

The data are found through NLTK_DATA. They are text and JSON; nothing is unpickled. NLTK loads all
of WordNet (some 4 s, 200 MB); after that 500 captions of 85 words take about 2 s. `read_each`
(`adapt/score/text/pool.py`) shares thousands of texts among processes.
"""

from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from typing import Literal

from adapt.params import InputError

Part = Literal["n", "v", "a", "r"]

TOKENIZER = "nltk.word_tokenize, punkt_tab"
TAGGER = "nltk.pos_tag, averaged_perceptron_tagger_eng"
LEMMATIZER = "nltk WordNetLemmatizer"
TAGS_AND_LEMMAS = {"tagger": TAGGER, "lemmas": LEMMATIZER}

# What NLTK's downloader calls a resource, and one of its files.
_FILES = {
    "punkt_tab": "tokenizers/punkt_tab/english/abbrev_types.txt",
    "averaged_perceptron_tagger_eng": (
        "taggers/averaged_perceptron_tagger_eng/averaged_perceptron_tagger_eng.weights.json"
    ),
    "wordnet": "corpora/wordnet/index.noun",
}


class Unreadable(InputError):
    """A text that NLTK gives up on, such as a million full stops; the caller adds whose it is."""


def words(text: str) -> list[str]:
    """All words and marks in order, as written: "It's a dog." is It, 's, a, dog and a full stop."""
    import nltk

    _require("punkt_tab", tuple(nltk.data.path))
    try:
        return nltk.word_tokenize(text)
    except TimeoutError:
        problem = "keeps NLTK's tokenizer busy too long; shorten it"
        raise Unreadable(f"a text of {len(text)} characters {problem}") from None


def tags(words: Sequence[str]) -> list[str]:
    """A Penn Treebank tag for each word of a text, all its sentences at once."""
    import nltk

    _require("averaged_perceptron_tagger_eng", tuple(nltk.data.path))
    return [tag for _, tag in nltk.pos_tag(words)]


def lemma(word: str, part: Part) -> str:
    """The shortest base form that WordNet knows; the word itself where it knows none.

    WordNet has "men", so that it stays, and "vas", which it makes of "vases".
    """
    import nltk

    _require("wordnet", tuple(nltk.data.path))
    return nltk.WordNetLemmatizer().lemmatize(word, part)


def uses(word: str) -> tuple[int, int]:
    """How often WordNet's tagged texts use a word as a noun, and as an adjective.

    From `index.sense`: NLTK's own counts miss most adjectives that are like another one ("sleepy").
    """
    import nltk

    _require("wordnet", tuple(nltk.data.path))
    counts = _sense_counts(tuple(nltk.data.path))
    return counts["1", word], counts["3", word] + counts["5", word]


@lru_cache(maxsize=1)
def _sense_counts(path: tuple[str, ...]) -> Counter[tuple[str, str]]:
    """By a part of speech's digit and the word; a line is `dog%1:05:00:: offset sense count`."""
    from nltk.data import find

    counts: Counter[tuple[str, str]] = Counter()
    with find("corpora/wordnet/index.sense").open() as file:
        for line in file.read().decode("utf-8").splitlines():
            if not line.endswith(" 0"):
                word, sense = line.split("%", 1)
                counts[sense[0], word] += int(line.rsplit(" ", 1)[1])
    return counts


@lru_cache
def _require(resource: str, path: tuple[str, ...]) -> None:
    """`InputError` where no folder of `path` has the resource: NLTK's own error fills a screen."""
    from nltk.data import find

    try:
        find(_FILES[resource])
    except LookupError:
        command = f"python -m nltk.downloader {resource}"
        raise InputError(f"NLTK_DATA: {resource} is missing; run `{command}`") from None
