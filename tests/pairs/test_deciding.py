"""What decides between two answers, on answers of the drawn world and on such as people write."""

import dataclasses
import itertools
import re
from typing import Any

import pytest

from adapt.data.scenes import examples as drawn
from adapt.data.scenes import vocabulary
from adapt.data.schema import Example, SceneObject, Vocabulary
from adapt.pairs.deciding import by_truth, by_words, words

WORDS = Vocabulary(
    objects={
        **{word: (word,) for word in ("house", "tree", "car", "bus", "orange")},
        "bicycle": ("bicycle", "bike"),
    },
    colours=("red", "green", "blue", "light blue", "orange"),
)


def example(kind: str = "describe", answer: str = "", **colours: str) -> Example:
    """A picture with these things, "" for one whose colour nobody knows."""
    things = [SceneObject(name=name, colour=one, box=None) for name, one in colours.items()]
    return Example(
        **{"id": "a", "image_id": "a", "images": (b"",), "kind": kind, "history": ()},
        **{"question": "?", "answer": answer, "objects": tuple(things), "absent": ()},
    )


SCENE = example(house="red", tree="green", bicycle="blue")


def said(chosen: str, rejected: str, spans: tuple) -> tuple[list[str], list[str]]:
    """The characters that decide, of either answer."""
    good, bad = spans
    for own in spans:
        assert all(end <= start for (_, end), (start, _) in itertools.pairwise(own))
    return [chosen[a:b] for a, b in good], [rejected[a:b] for a, b in bad]


def of_truth(chosen: str, rejected: str, scene: Example = SCENE, vocabulary: Vocabulary = WORDS):
    return said(chosen, rejected, by_truth(chosen, rejected, scene, vocabulary))


def of_words(chosen: str, rejected: str):
    return said(chosen, rejected, by_words(chosen, rejected))


# ---- ranked by ground truth ----------------------------------------------------------------------


def test_what_is_made_up_and_what_is_missing_decide():
    chosen = "the picture shows a red house , a green tree and a blue bicycle ."
    rejected = "the picture shows a red house , a blue bus and a red car ."
    assert of_truth(chosen, rejected) == (
        ["green tree", "blue bicycle"],
        ["blue bus", "red car"],
    )


def test_in_the_drawn_world_what_habit_says_decides():
    """True answers against habitual ones: the things that only one of them says, and yes or no."""
    rows = [one for index in range(60) for one in drawn("train", index, **WORLD)]
    habitual = [row for row in rows if row.noisy_answer]
    assert {row.kind for row in habitual} == {"describe", "exists"} and len(habitual) > 30
    for row in habitual:
        good, bad = of_truth(row.answer, row.noisy_answer, row, vocabulary())
        if row.kind == "exists":
            assert (good, bad) == (["no", "no"], ["yes"])
            continue
        true, said = (things(text) for text in (row.answer, row.noisy_answer))
        assert (good, bad) == (
            [t for t in true if t not in said],
            [t for t in said if t not in true],
        )


WORLD: dict[str, Any] = {"size": 24, "caption_noise": 0.9, "seed": 5}


def things(sentence: str) -> list[str]:
    """Colour and name of all that a sentence of the drawn world lists."""
    return re.findall(r"\ban? (\w+ \w+)", sentence)


def test_a_wrong_colour_decides_and_a_missing_one_does_not():
    assert of_truth("A red house.", "A Blue House and a tree.") == (["red house"], ["Blue House"])
    # The rejected tree has no colour: nothing of it could become less likely.
    assert of_truth("a green tree.", "a tree.") == (["green tree"], [])
    # The chosen house is new, and in a wrong colour, which is nothing to learn.
    assert of_truth("a blue house, a green tree", "a green tree.") == (["house"], [])


def test_repeated_words_decide_each_time():
    assert of_truth("a bike, a bicycle and a bike.", "a car, a tree and a car.") == (
        ["bike", "bicycle", "bike"],
        ["car", "car"],
    )
    # The tree of the chosen answer is right once and wrong once; the other answer has it wrong.
    assert of_truth("a green tree, a red tree", "a blue tree") == (["green tree"], ["blue tree"])


def test_a_colour_may_have_two_words_and_be_a_thing_as_well():
    scene = example(orange="orange", house="light blue")
    assert of_truth("a light blue car.", "a light blue bus.", example(car="light blue"))[1] == [
        "light blue bus"
    ]
    assert of_truth("an orange orange", "a house", scene)[0] == ["orange orange"]
    assert of_truth("an orange", "an orange, a red\n bus", scene)[1] == ["red\n bus"]
    assert of_truth("a house", "an orange. bus", scene)[1] == ["bus"], "another sentence"


def test_short_answers_have_a_word_that_decides():
    exists = example("exists", "no, there is no car.")
    chosen, rejected = "No, there is no car.", "yes, there is a car."
    assert of_truth(chosen, rejected, exists) == (["No", "no"], ["yes"])
    assert said("no", "yes", by_truth("no", "yes", exists, None)) == (["no"], ["yes"])
    colour = example("colour", "the house is red.")
    assert of_truth("it is red.", "it is blue.", colour) == (["red"], ["blue"])
    assert of_truth("it is red.", "it is red or blue.", colour) == ([], ["blue"])


def test_where_truth_finds_nothing_the_words_that_differ_decide():
    exists = example("exists", "no, there is none.")
    assert of_truth("nobody is there.", "somebody is there.", exists) == (["nobody"], ["somebody"])
    # Both say the same things, the better one in fewer words.
    assert of_truth("a red house.", "a big red house.") == ([], ["big"])


def test_a_picture_of_which_nothing_is_known_to_be_there():
    nothing = dataclasses.replace(SCENE, objects=())
    assert of_truth("It is quiet.", "A red car.", nothing) == ([], ["red car"])


# ---- given ---------------------------------------------------------------------------------------


def test_the_words_that_differ_decide():
    chosen = "A man rides a brown horse along the beach, and two dogs follow him."
    rejected = "A man rides a white horse along the beach; three dogs follow him, barking."
    assert of_words(chosen, rejected) == (["brown", "and two"], ["white", "three", "barking"])


@pytest.mark.parametrize(
    ("chosen", "rejected", "expected"),
    [
        ("a cat.", "a cat.", ([], [])),
        ("A cat , “sleeping”.", 'a  cat, "sleeping"\n', ([], [])),  # signs and blanks alone
        ("one two three", "four five six seven", (["one two three"], ["four five six seven"])),
        ("", "a cat", ([], ["a cat"])),
        ("...", "!", ([], [])),
        ("a cat", "a cat and a dog.", ([], ["and a dog"])),
        ("the the the cat", "the the cat cat", (["the"], ["cat"])),
        ("a cat, a dog, a cow", "a cat (black), a dog, a pig", (["cow"], ["black", "pig"])),
        ("it costs $5", "it costs €5", (["$"], ["€"])),
    ],
)
def test_edges(chosen, rejected, expected):
    good, bad = of_words(chosen, rejected)
    assert (good, bad) == expected


def test_scripts_and_signs_of_the_world():
    # The same word composed and decomposed, and in full width.
    assert of_words("un café noir", "un cafe\u0301 blanc") == (["noir"], ["blanc"])
    assert of_words("\uff13 cats", "3 cats") == ([], [])
    # No blanks between words: every sign is one.
    assert of_words("桌上有一只猫。", "桌上有两只狗。") == (["一", "猫"], ["两", "狗"])
    assert of_words("कुत्ता सो रहा है", "बिल्ली सो रही है") == (["कुत्ता", "रहा"], ["बिल्ली", "रही"])
    # What belongs to a sign stays with it: a skin, a variant, a family.
    family, wave = "👩\u200d👧", "👋\U0001f3fd"
    assert [("x" + wave + family)[a:b] for a, b in words("x" + wave + family)] == [
        "x",
        wave,
        family,
    ]
    assert of_words(f"hi {wave}", "hi 👋") == ([wave], ["👋"])


def test_words_cover_a_text_but_for_white_space():
    text = " \u0301a_b-c\t3.5\u00a0№7 \n"
    covered = {at for start, end in words(text) for at in range(start, end)}
    assert covered == {at for at, sign in enumerate(text) if not sign.isspace()}
