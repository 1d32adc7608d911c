"""Ranking answers by ground truth."""

import dataclasses

from adapt.data.schema import Example, SceneObject, Vocabulary
from adapt.pairs.rank import best_and_worst, score, unrankable

VOCABULARY = Vocabulary(
    objects={w: (w,) for w in ("house", "tree", "car")}, colours=("red", "green", "blue")
)


def example(kind: str, answer: str) -> Example:
    box = (0.1, 0.1, 0.3, 0.3)
    objects = (
        SceneObject(name="house", colour="red", box=box),
        SceneObject(name="tree", colour="green", box=box),
    )
    return Example(
        id="a",
        image_id="a",
        images=(b"",),
        kind=kind,
        history=(),
        question="?",
        answer=answer,
        objects=objects,
        absent=("car",),
    )


def test_descriptions_by_hand():
    describe = example("describe", "a red house and a green tree.")
    assert score("a red house and a green tree.", describe, VOCABULARY) == 1.0
    assert score("a red house.", describe, VOCABULARY) == 0.5  # half of the truth
    assert score("a red house, a green tree and a car.", describe, VOCABULARY) == 1 - 1 / 3
    assert score("a blue house and a green tree.", describe, VOCABULARY) == 1 - 0.5 / 2
    assert score("", describe, VOCABULARY) == 0.0


def test_short_answers_are_right_or_wrong():
    assert score("no.", example("exists", "no, there is no car."), VOCABULARY) == 1.0
    assert (
        score("yes, there is a car.", example("exists", "no, there is no car."), VOCABULARY) == 0.0
    )
    assert score("it is red.", example("colour", "the house is red."), VOCABULARY) == 1.0
    assert score("it is red or blue.", example("colour", "the house is red."), VOCABULARY) == 0.0


def test_answers_that_do_not_differ_enough_make_no_pair():
    assert best_and_worst([0.5, 0.45], ["a", "b"], min_gap=0.1) is None
    assert best_and_worst([0.2, 0.9, 0.1], ["a", "b", "c"], min_gap=0.1) == (1, 2)


def test_nothing_there_is_known_and_not_unknown():
    nothing = dataclasses.replace(example("describe", "an empty room."), objects=(), absent=())
    assert score("it is quiet.", nothing, VOCABULARY) == 0
    assert score("a house.", nothing, VOCABULARY) == -1


def test_what_cannot_be_ranked():
    unknown = dataclasses.replace(example("describe", "a house."), objects=None)
    assert unrankable(unknown, VOCABULARY) == "what is in the picture is not known"
    assert not unrankable(dataclasses.replace(unknown, objects=()), VOCABULARY)
    assert "no rule" in unrankable(dataclasses.replace(unknown, kind="other"), VOCABULARY)
    for kind, answer, without in (("exists", "no", ""), ("colour", "red", "no vocabulary.json")):
        asked = dataclasses.replace(example(kind, answer), objects=None)
        assert not unrankable(asked, VOCABULARY)
        assert unrankable(asked, None).startswith(without)
    there = dataclasses.replace(example("exists", "no"), objects=None)
    assert score("No, there is none.", there, None) == 1
