"""What the drawn worlds consist of: their things, the habits of their captions, how hard they are.

Things belong to four themes of six. A habit is something that captions say whether it is true or
not: a companion that is named along, the colour and the size that such things usually have. Its
strength, against `caption_noise`, is how often; habits differ in strength, so that a model that
trusts them hallucinates where they are strong.

The two worlds have the same things and the same words for them. A scene of the hard one stays in
two themes instead of one and has up to six things, half of them small, each with a second
attribute, its size. Its habits reach all three kinds of questions: some usual colours are said more
often than not, also by answers to questions for a colour, and what is asked about and absent mostly
is the companion of something that is there, as in POPE's adversarial questions.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from adapt.data.pen import COLOURS

THEMES: dict[str, tuple[str, ...]] = {
    "town": ("house", "car", "bus", "bicycle", "tree", "flag"),
    "kitchen": ("cup", "bottle", "apple", "banana", "fork", "cake"),
    "room": ("chair", "table", "bed", "lamp", "clock", "cat"),
    "beach": ("boat", "fish", "umbrella", "ball", "kite", "star"),
}
KINDS = tuple(kind for theme in THEMES.values() for kind in theme)
PLURALS = {"bus": "buses", "fish": "fishes"}
SYNONYMS = {"bicycle": ("bike", "bikes"), "cat": ("kitten", "kittens"), "cup": ("mug", "mugs")}
# Habit: in each theme the first, third and fifth thing name the one after them along, whether it is
# there or not. The strengths, against `caption_noise`, are 2/13 to 24/13 over the twelve pairs, so
# that with a noise of 0.5 they run from almost never to almost always.
COMPANIONS = {
    theme[first]: (theme[first + 1], 2 * (3 * i + first // 2 + 1) / 13)
    for i, theme in enumerate(THEMES.values())
    for first in (0, 2, 4)
}
USUAL_COLOURS = {kind: list(COLOURS)[i % len(COLOURS)] for i, kind in enumerate(KINDS)}
SMALL, BIG = "small", "big"
LITTLE = {*THEMES["kitchen"], "flag", "clock", "cat", "fish", "ball", "star"}
USUAL_SIZES = {kind: SMALL if kind in LITTLE else BIG for kind in KINDS}


@dataclass(frozen=True, kw_only=True)
class World:
    """How the scenes of a world are drawn, and what habit does to what is said of them.

    Attributes:
        most_things: a scene has two of them at least, this many at most.
        themes: how many neighbouring themes most scenes stay in.
        sides: by size word, the smallest and the largest side of a thing, as shares of its cell's;
            under "" where sizes are not spoken of.
        colour_habits: by kind, the strength of saying its usual colour.
        size_habit: the strength of saying the usual size.
        answers_by_habit: whether the answer to a question for a colour follows habit, too.
        asks_for_companions: whether a question about something absent is likely to be about a
            companion of what is there, rather than about anything else of the scene's themes.
    """

    fewest_things: int
    most_things: int
    themes: int
    sides: Mapping[str, tuple[float, float]]
    colour_habits: Mapping[str, float]
    size_habit: float
    answers_by_habit: bool
    asks_for_companions: bool


WORLDS: dict[str, World] = {
    "default": World(
        fewest_things=2,
        most_things=4,
        themes=1,
        sides={"": (0.8, 0.98)},
        colour_habits=dict.fromkeys(KINDS, 0.6),
        size_habit=0.0,
        answers_by_habit=False,
        asks_for_companions=False,
    ),
    "hard": World(
        fewest_things=3,
        most_things=6,
        themes=2,
        sides={SMALL: (0.55, 0.68), BIG: (0.85, 0.98)},
        # With a noise of 0.6, the usual colour of every fourth thing is said more often than not.
        colour_habits={kind: 1.1 * (7 * i % 24 + 1) / 24 for i, kind in enumerate(KINDS)},
        size_habit=0.6,
        answers_by_habit=True,
        asks_for_companions=True,
    ),
}
