"""Words, tags and lemmas: equal to NLTK's own on every caption at hand; what strict reading mends."""

from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from adapt.params import InputError
from adapt.score.text import nouns, tagger, tokens, wordnet
from tests.support import oracle

VOCABULARY = {
    word: word
    for word in ("person", "man", "dog", "cat", "glass", "vase", "sunglasses", "leave", "tree")
}
VOCABULARY["tv"] = "TV"


@cache
def captions() -> tuple[str, ...]:
    """All captions of the oracle, each other one in capitals or lower case too."""
    amber = [case["response"] for case in oracle.load("amber_generative.json")["cases"]]
    chair = [case["caption"] for case in oracle.load("chair_handwritten.json")["cases"]]
    released = [
        text
        for run in oracle.load("chair_opera_logs.json")["runs"]
        for _, text in run["captions"][::20]
    ]
    return tuple(
        form for text in amber + chair + released for form in (text, text.lower(), text.upper())
    )


@pytest.fixture
def loaded(nltk_data: None) -> Iterator[tagger.Tagger]:
    yield tagger.load()


def test_tags_are_nltks_on_every_caption(loaded: tagger.Tagger) -> None:
    from nltk.tag.perceptron import PerceptronTagger

    official = PerceptronTagger()
    for caption in captions():
        words = tokens.words(caption)
        assert loaded.tag(words) == [tag for _, tag in official.tag(words)], caption


def test_plain_sentences_are_split_as_nltks_rules_split_them(nltk_data: None) -> None:
    from nltk.tokenize import NLTKWordTokenizer

    awkward = [
        "",
        ".",
        "a",
        "A cat.",
        "cannot see",
        "I'm gonna go.",
        "a,b",
        "1,000 cats",
        "well-known, a b",
        "a -b",
    ]
    for sentence in [
        *awkward,
        "é",
        "A cat..",
        "a  b",
        *(part for text in captions() for part in text.split(". ")),
    ]:
        assert tokens._of_sentence(sentence) == NLTKWordTokenizer().tokenize(sentence), sentence


@pytest.mark.parametrize(
    ("text", "stops"),
    [
        ("A dog. The cat.", 2),
        ("Mr. Smith and St. Mary vs. a dog", 0),
        ("At 5 p.m. the dog runs.", 1),
        ("It is 5 p.m. The dog runs.", 2),
        ("See plan B. The dog runs.", 2),
        ("The U.S. flag flies.", 1),
        ("1. Tree\n2. House", 2),
    ],
)
def test_sentences_end_without_a_punkt_model_where_they_end_with_one(
    nltk_data: None, text: str, stops: int
) -> None:
    assert "without a model" in tokens.describe()
    assert tokens.words(text).count(".") == stops  # as counted with punkt_tab


def test_lemmas_are_nltks(nltk_data: None) -> None:
    for form, lemma in oracle.load("amber_lemma_table.json")["table"].items():
        assert wordnet.load("n").lemma(form) == lemma
    noun, verb = wordnet.load("n").lemma, wordnet.load("v").lemma
    assert [noun(word) for word in ("men", "vases", "Dogs", "geese")] == [
        "men",
        "vas",
        "Dogs",
        "goose",
    ]
    assert [verb(word) for word in ("is", "potted", "lying")] == ["be", "pot", "lie"]
    assert (
        wordnet.load("a").lemma("larger") == "large" and wordnet.load("r").lemma("best") == "best"
    )


def test_nouns_are_the_official_ones(nltk_data: None) -> None:
    for case in oracle.load("amber_generative.json")["cases"]:
        assert nouns.nouns(case["response"], nouns.WORDNET) == case["official_nouns"], case["id"]


def test_a_table_of_lemmas_leaves_out_what_it_does_not_have(nltk_data: None) -> None:
    lemmas = nouns.Lemmas({"dogs": "dog"}, "one form")
    assert nouns.nouns("Two dogs and a cat in sunglasses.", lemmas) == ["dog"]


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("Person near a dog.", ["person", "dog"]),  # a capital
        ("A PERSON WALKS A DOG.", ["person", "dog"]),
        ("Two men with sunglasses.", ["man", "sunglasses"]),  # plurals that WordNet keeps, or loses
        ("Glasses and vases beside leaves, and two TVs.", ["glass", "vase", "leave", "TV"]),
        ("There is no dog and no cat, only a man.", ["man"]),  # negation
        ("A man without a dog sits near a tree.", ["man", "tree"]),
        ("The man is not walking a dog, but there's a cat.", ["man", "cat"]),
    ],
)
def test_strict_reading(nltk_data: None, text: str, named: list[str]) -> None:
    assert nouns.stated(text, nouns.WORDNET, VOCABULARY) == named


def test_missing_data_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("nltk.data.path", [str(tmp_path)])
    with pytest.raises(
        InputError, match=r"NLTK_DATA: .* nltk.downloader averaged_perceptron_tagger_eng"
    ):
        tagger.load()
    with pytest.raises(InputError, match=r"NLTK_DATA: .* nltk.downloader wordnet"):
        wordnet.load("n")


def test_a_text_that_nltk_gives_up_on_is_the_users_mistake(monkeypatch: pytest.MonkeyPatch) -> None:
    class Busy:
        def tokenize(self, text: str) -> list[str]:
            raise TimeoutError("match exceeded its time limit")

    monkeypatch.setattr(tokens, "_splitter", lambda path: Busy())
    with pytest.raises(InputError, match="a text of 3 characters"):
        tokens.words("...")
