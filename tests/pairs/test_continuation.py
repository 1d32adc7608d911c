"""Where an answer goes wrong, and which others go on from there, by hand."""

import pytest

from adapt.data.schema import Example, SceneObject, Vocabulary
from adapt.pairs.continuation import Cut, better, cuts, goes_wrong

WORDS = Vocabulary(
    objects={
        **{word: (word,) for word in ("house", "tree", "car", "bus", "dog")},
        "dog house": ("dog house",),
    },
    colours=("red", "green", "blue"),
)
BOX = (0.1, 0.1, 0.3, 0.3)


def example(**colours: str) -> Example:
    """A description of a picture with these things."""
    things = colours or {"house": "red", "tree": "green"}
    return Example(
        id="a",
        image_id="a",
        images=(b"",),
        kind="describe",
        history=(),
        question="?",
        answer="a red house.",
        objects=tuple(SceneObject(name=n, colour=c, box=BOX) for n, c in things.items()),
        absent=("car",),
    )


def cut(answers: list[str], about: Example) -> Cut:
    """The first that a pair is tried of."""
    return cuts(answers, about, WORDS)[0]


@pytest.mark.parametrize(
    ("answer", "right"),
    [
        ("a red house, a blue car.", "a red house"),
        ("a red house and behind it stands a car.", "a red house"),
        ("a red house, a green tree and a blue car, a bus.", "a red house, a green tree"),
        ("a blue car, a red house.", ""),
        ("the picture shows a car.", ""),
        # A wrong colour is an error, one that nobody names is none.
        ("a red house, a blue tree.", "a red house"),
        ("a house, a tree, a bus.", "a house, a tree"),
        ("a blue house.", ""),
        # A whole sentence behind the last thing that is there is right as well.
        ("a red house. It is sunny. There is a car.", "a red house. It is sunny."),
        ("It is sunny! There is a car.", "It is sunny!"),
        ("a red house\nand\na car", "a red house\nand\n"),
    ],
)
def test_where_an_answer_goes_wrong(answer, right):
    found = goes_wrong(answer, example(), WORDS)
    assert found is not None and found.prefix == right


def test_an_answer_that_does_not():
    for answer in ("a red house, a green tree.", "it is sunny.", "", "a house"):
        assert goes_wrong(answer, example(), WORDS) is None


def test_the_worst_is_cut_and_among_equals_the_one_that_goes_wrong_last():
    answers = ["a red house.", "a car, a red house.", "a red house, a car.", "a car, a bus."]
    worst = cut(answers, example())
    assert (worst.answer, worst.prefix) == ("a car, a bus.", "")
    same = cut(answers[:3], example())
    assert (same.answer, same.prefix) == (answers[2], "a red house")
    assert cuts(["a red house."], example(), WORDS) == []
    assert [one.answer for one in cuts(answers, example(), WORDS)] == [
        answers[number] for number in (3, 2, 1)
    ]


def test_what_is_not_there_comes_before_a_colour():
    """However bad the score of the one with the colours is."""
    colours, thing = "a blue house, a red tree.", "a red house, a green tree, a car."
    found = cut([colours, thing], example())
    assert (found.answer, found.is_there) == (thing, False)
    assert found.score > cut([colours], example()).score


def pair(bad: str, answers: list[str], min_gap: float = 0.1, **colours: str):
    about = example(**colours)
    return better(cut([bad], about), answers, about, WORDS, min_gap)


def test_the_best_that_goes_on_rightly_from_the_same_words():
    bad = "a red house, a blue car."
    good = "a red house, a green tree."
    answers = [bad, "a red house.", good, "a green tree, a red house.", "a red house, a bus."]
    found = pair(bad, answers)
    assert found is not None
    assert (found.chosen, found.rejected, found.prefix) == (good, bad, "a red house, a")
    assert found.chosen_score == 1.0 and found.rejected_score == 0.5 - 1 / 2
    # To stop in time is better than to make something up.
    stopped = pair(bad, [bad, "a red house."])
    assert stopped is not None and stopped.chosen == "a red house."
    assert stopped.prefix == "a red house"


def test_what_goes_wrong_at_once_is_no_better_whatever_its_score():
    bad = "a red house, a blue car."
    # Three things in all: the score is high, and the first thing behind the prefix is made up.
    late = "a red house, a bus, a green tree."
    assert pair(bad, [late]) is None
    # The first thing is there, a later one is not.
    assert pair(bad, ["a red house, a green tree, a bus."]) is not None
    # Words of the prefix that become another thing with those behind.
    assert pair("a dog, a car.", ["a dog house."], dog="") is None


def test_little_better_is_no_pair():
    assert pair("a red house, a blue car.", ["a red house."], min_gap=0.6) is None
    assert pair("a red house, a blue car.", []) is None
    assert pair("a red house, a blue car.", ["a green tree."]) is None
    assert pair("a blue car.", [""]) is None, "an empty answer trains nothing"


def test_among_equals_the_one_of_the_same_length():
    bad = "a red house, a small blue car on the left."
    short, same = "a red house, a green tree.", "a red house, a big green tree on the right."
    for answers in ([short, same], [same, short]):
        found = pair(bad, answers)
        assert found is not None and found.chosen == same
