"""What is asked about a drawn scene and answered: truly, and as habit has it.

Every scene has a description, two "is there" questions, the first about something that is there,
and a question for a colour. `Habit` decides what a noisy answer says instead of the picture.
"""

from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

import numpy as np

from adapt.data.pen import COLOURS
from adapt.data.worlds import COMPANIONS, KINDS, USUAL_COLOURS, USUAL_SIZES, World

# Of the questions about something absent: about what is likely, as in POPE.
SHARE_OF_LIKELY_NEGATIVES = 0.8

Texts = dict[str, Any]
Row = tuple[str, Texts]  # the end of its id, and its texts


class Said(NamedTuple):
    """A thing as a caption names it; `size` is "" where sizes are not spoken of."""

    size: str
    colour: str
    name: str


class Habit:
    """What captions say out of habit; every question takes from one random stream of the image."""

    def __init__(self, world: World, rng: np.random.Generator, caption_noise: float) -> None:
        self.world, self._rng, self._noise = world, rng, caption_noise

    def wins(self, strength: float) -> bool:
        """Whether a habit of this strength decides what is said, and not the picture."""
        return self._rng.random() < strength * self._noise

    def colour(self, name: str, true: str) -> str:
        """The colour that is said of a thing."""
        return USUAL_COLOURS[name] if self.wins(self.world.colour_habits[name]) else true

    def size(self, name: str, true: str) -> str:
        """The size that is said of a thing, "" where sizes are not spoken of."""
        return USUAL_SIZES[name] if true and self.wins(self.world.size_habit) else true

    def invented(self, name: str) -> Said:
        """A thing that is not there, in any colour and size."""
        colour = str(self._rng.choice(list(COLOURS)))
        return Said(one_of(self.world.sides, self._rng), colour, name)


def asked(
    things: Sequence[Said], absent: tuple[str, ...], truth: np.random.Generator, habit: Habit
) -> list[Row]:
    """The rows about a scene with these things, of whose themes others are absent.

    `truth` chooses what is asked about; what is said from habit takes nothing from it.
    """
    names = [thing.name for thing in things]
    rows = [_describe(list(things), habit), *_exists(names, absent, truth, habit)]
    return [*rows, _colour(things, truth, habit)]


def one_of(words: Collection[str], rng: np.random.Generator) -> str:
    """One of the words by chance; the only one without asking chance."""
    return str(rng.choice(list(words))) if len(words) > 1 else next(iter(words))


def with_article(words: str) -> str:
    """`words` after "a" or "an".

    >>> with_article("umbrella"), with_article("red umbrella")
    ('an umbrella', 'a red umbrella')
    """
    return f"{'an' if words[0] in 'aeiou' else 'a'} {words}"


def listing(things: Sequence[Said]) -> str:
    """A sentence that lists things.

    >>> listing([Said("", "red", "house"), Said("small", "green", "tree"), Said("", "blue", "car")])
    'the picture shows a red house, a small green tree and a blue car.'
    """
    *first, last = [with_article(" ".join(filter(None, thing))) for thing in things]
    others = f"{', '.join(first)} and " if first else ""
    return f"the picture shows {others}{last}."


def _texts(kind: str, question: str, answer: str, noisy: str = "") -> Texts:
    return {"kind": kind, "question": question, "answer": answer, "noisy_answer": noisy}


def _describe(things: list[Said], habit: Habit) -> Row:
    habitual = _by_habit(things, habit)
    noisy = listing(habitual) if habitual != things else ""
    return "describe", _texts("describe", "describe the picture.", listing(things), noisy)


def _by_habit(things: list[Said], habit: Habit) -> list[Said]:
    """The things as habit has them: some as they usually are, absent companions at the end."""
    # 1. Everything that is there, some of it in the colour and the size that such things have.
    named = [
        Said(colour=habit.colour(name, colour), size=habit.size(name, size), name=name)
        for size, colour, name in things
    ]
    # 2. What usually comes along and is not there, in any colour.
    present = {thing.name for thing in things}
    for companion, strength in (COMPANIONS[t.name] for t in things if t.name in COMPANIONS):
        if companion not in present and habit.wins(strength):
            named.append(habit.invented(companion))
    return named


def _exists(
    present: list[str], absent: tuple[str, ...], truth: np.random.Generator, habit: Habit
) -> list[Row]:
    """One question about something present, one about something absent."""
    # 1. The absent thing is mostly a likely one, which is harder to deny.
    partners = [COMPANIONS[name] for name in present if name in COMPANIONS]
    companions = tuple(sorted({name for name, _ in partners} - {*present}))
    likely = (habit.world.asks_for_companions and companions) or absent
    others = [kind for kind in KINDS if kind not in present and kind not in likely]
    pool = list(likely) if truth.random() < SHARE_OF_LIKELY_NEGATIVES else others
    positive, negative = str(truth.choice(present)), str(truth.choice(pool))
    # 2. Habit says yes to an absent companion, as strongly as its strongest partner names it.
    strength = max([strength for name, strength in partners if name == negative], default=0.0)
    is_fooled = habit.wins(strength)
    rows = []
    for name, is_there in ((positive, True), (negative, False)):
        yes = f"yes, there is {with_article(name)}."
        answer = yes if is_there else f"no, there is no {name}."
        noisy = yes if is_fooled and not is_there else ""
        texts = _texts("exists", f"is there {with_article(name)}?", answer, noisy)
        rows.append((f"exists-{name}", texts))
    return rows


def _colour(things: Sequence[Said], truth: np.random.Generator, habit: Habit) -> Row:
    thing = things[int(truth.integers(len(things)))]
    by_habit = habit.world.answers_by_habit
    said = habit.colour(thing.name, thing.colour) if by_habit else thing.colour
    answer, habitual = (f"the {thing.name} is {colour}." for colour in (thing.colour, said))
    noisy = habitual if said != thing.colour else ""
    question = f"what colour is the {thing.name}?"
    return f"colour-{thing.name}", _texts("colour", question, answer, noisy)
