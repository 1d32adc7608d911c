"""Which things an answer mentions, and where they are: places, for supervision by boxes.

What is truly in a picture, with its boxes, comes with the data (`adapt/data/schema.py`); what is
mentioned is found by the words of the vocabulary, as for CHAIR. Neither depends on a model.
"""

from collections.abc import Sequence

from adapt.data.schema import SceneObject, Vocabulary
from adapt.metrics.mentions import Mention, find, word_before
from adapt.pairs.record import PairPlace


def mentioned(
    answer: str, objects: Sequence[SceneObject] | None, vocabulary: Vocabulary | None
) -> tuple[PairPlace, ...]:
    """The mentions of an answer of which it is known where they are: places on the first picture.

    Without boxes is one that is nowhere. One that is somewhere, nobody has said where, is left out.

    >>> words = Vocabulary(objects={"car": ("car",), "tree": ("tree",)}, colours=("red", "blue"))
    >>> red = SceneObject(name="car", colour="red", box=(0.0, 0.0, 0.5, 1.0))
    >>> blue = SceneObject(name="car", colour="blue", box=(0.5, 0.0, 1.0, 1.0))
    >>> for place in mentioned("a blue car , a car and a tree .", (red, blue), words):
    ...     print(place.start, place.end, place.boxes)
    7 10 ((0.5, 0.0, 1.0, 1.0),)
    15 18 ((0.0, 0.0, 0.5, 1.0), (0.5, 0.0, 1.0, 1.0))
    25 29 ()
    """
    if objects is None or vocabulary is None:
        return ()
    places = []
    for mention in find(answer, vocabulary.objects):
        things = _meant(answer, mention, objects)
        boxes = tuple(thing.box for thing in things if thing.box is not None)
        if boxes or not things:
            place = PairPlace(start=mention.start, end=mention.end, image=0, boxes=boxes)
            places.append(place)
    return tuple(places)


def _meant(answer: str, mention: Mention, objects: Sequence[SceneObject]) -> list[SceneObject]:
    """The things of that name; those of the colour that is said right before it, if there are."""
    things = [thing for thing in objects if thing.name == mention.name]
    before = word_before(answer, mention)
    of_colour = [thing for thing in things if thing.colour and thing.colour == before]
    return of_colour or things
