"""Words, tags and lemmas as the official codes had them; what strict reading mends; many texts."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from adapt.params import InputError
from adapt.score.text import english, nouns, pool
from tests.support import oracle

VOCABULARY = {
    word: word
    for word in ("person", "man", "dog", "cat", "glass", "vase", "sunglasses", "leave", "tree")
}
VOCABULARY["tv"] = "TV"


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
def test_a_full_stop_is_no_part_of_the_last_word(nltk_data: None, text: str, stops: int) -> None:
    assert english.words(text).count(".") == stops


def test_lemmas_are_the_official_ones(nltk_data: None) -> None:
    for form, lemma in oracle.load("amber_lemma_table.json")["table"].items():
        assert english.lemma(form, "n") == lemma


def test_lemmas_by_part_of_speech(nltk_data: None) -> None:
    forms = {"men": "men", "vases": "vas", "Dogs": "Dogs", "geese": "goose"}
    assert {form: english.lemma(form, "n") for form in forms} == forms
    verbs = {"is": "be", "potted": "pot", "lying": "lie"}
    assert {form: english.lemma(form, "v") for form in verbs} == verbs
    assert (english.lemma("larger", "a"), english.lemma("best", "r")) == ("large", "best")


def test_how_often_a_word_is_a_noun(nltk_data: None) -> None:
    # The sums of the last numbers of wooden%1, and wooden%3 and wooden%5, in WordNet's index.sense.
    assert english.uses("wooden") == (0, 16) and english.uses("dog") == (42, 0)
    assert english.uses("sleepy")[1] == 6


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


@pytest.mark.parametrize(
    ("resource", "read"),
    [
        ("punkt_tab", lambda: english.words("A dog.")),
        ("averaged_perceptron_tagger_eng", lambda: english.tags(["dog"])),
        ("wordnet", lambda: english.lemma("dogs", "n")),
    ],
)
def test_missing_data_are_named(
    resource: str, read: Callable[[], object], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("nltk.data.path", [str(tmp_path)])
    command = f"python -m nltk.downloader {resource}"
    with pytest.raises(InputError, match=f"^NLTK_DATA: {resource} is missing; run `{command}`$"):
        read()


def test_a_text_that_nltk_gives_up_on_is_the_users_mistake(
    nltk_data: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def busy(text: str) -> list[str]:
        raise TimeoutError("match exceeded its time limit")

    monkeypatch.setattr("nltk.word_tokenize", busy)
    with pytest.raises(InputError, match=r"^id 7: a text of 3 characters"):
        pool.read_each(english.words, [("id 7", "...")])


def test_several_processes_read_what_one_reads(
    nltk_data: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = [f"Two dogs beside {number} men." for number in range(7)]
    named = [(f"id {number}", text) for number, text in enumerate(texts)]
    read = partial(nouns.nouns, lemmas=nouns.WORDNET)
    alone = pool.read_each(read, named)
    assert alone == [["dog", "men"]] * 7
    monkeypatch.setattr(pool, "_SHARE", 2)
    monkeypatch.setattr(pool, "_CHUNK", 2)
    monkeypatch.setattr(pool.environment, "cpus", lambda: 2)
    assert pool.read_each(read, named) == alone
