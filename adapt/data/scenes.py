"""The default world: little drawn scenes with exact ground truth, and what is asked of them.

A scene has 2-4 different things in the cells of a 3 x 3 grid. Things belong to four themes of six,
and most scenes stay in one theme, so that things occur together. Training captions follow habit
where they do not follow the picture, as captions crawled from the web do: half of the things have a
companion that is named along with them whether it is there or not, and every thing has a usual
colour. The habits differ in strength from almost never to almost always, so a model that trusts
them hallucinates where they are strong; nothing in the pictures follows them.

Image i of a split depends on the seed, the split and i alone, so it stays the same when a split
grows, and the noise in its answers has its own random stream, so that `caption_noise` changes no
picture.
"""

import io
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from adapt.data.drawings import sprite
from adapt.data.pen import COLOURS
from adapt.data.schema import SPLITS, Example, SceneObject, Vocabulary
from adapt.data.settings import ScenesConfig
from adapt.progress import track

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
COLOUR_HABIT = 0.6  # strength of saying the usual colour, against `caption_noise`
GRID = 3
SHARE_OF_ONE_THEME = 0.8
# Of the "is there" questions about something absent: of the scene's own theme, as in POPE.
SHARE_OF_LIKELY_NEGATIVES = 0.8

Texts = dict[str, Any]
Row = tuple[str, Texts]  # the end of its id, and its texts


@dataclass(frozen=True, kw_only=True)
class SceneExample(Example):
    """A row of the drawn world.

    `noisy_answer` is what a crawled corpus would say, "" for what is true; only training on scratch
    reads it.
    """

    noisy_answer: str


@dataclass(frozen=True)
class Scene:
    """A picture, its objects in reading order, and the other things of its theme."""

    picture: Image.Image
    objects: tuple[SceneObject, ...]
    absent: tuple[str, ...]


def vocabulary() -> Vocabulary:
    """Every thing of the world with its words, and the colours."""
    words = {kind: (kind, PLURALS.get(kind, f"{kind}s"), *SYNONYMS.get(kind, ())) for kind in KINDS}
    return Vocabulary(objects=words, colours=tuple(COLOURS))


def drawn(config: ScenesConfig, split: str, seed: int) -> Iterator[SceneExample]:
    """All rows of a split of the world that `config` describes."""
    size, noise = config.image_size, config.caption_noise
    for index in track(range(config.images(split)), f"drawing {split}"):
        yield from examples(split, index, size=size, caption_noise=noise, seed=seed)


def examples(
    split: str, index: int, *, size: int, caption_noise: float, seed: int
) -> list[SceneExample]:
    """The rows about image `index` of `split`: one describe, two exists (yes, no), one colour."""
    # 1. Two random streams of this image's own: one draws and asks, the other one is habit.
    keys = [(SPLITS.index(split), index, stream) for stream in (0, 1)]
    seeds = [np.random.SeedSequence(seed, spawn_key=key) for key in keys]
    world, noise = map(np.random.default_rng, seeds)
    # 2. The picture, which alone decides what is true.
    scene = draw_scene(world, size)
    # 3. Its questions with true answers; noisy ones are for training alone.
    caption_noise = caption_noise if split == "train" else 0.0
    rows = [_describe(scene, noise, caption_noise), *_exists(scene, world, noise, caption_noise)]
    rows += [_colour(scene, world)]
    shared: dict[str, Any] = {"image_id": f"{split}-{index:05d}", "images": (_png(scene.picture),)}
    shared |= {"history": (), "objects": scene.objects, "absent": scene.absent}
    return [
        SceneExample(**texts, **shared, id=f"{shared['image_id']}-{name}") for name, texts in rows
    ]


# ---- pictures ------------------------------------------------------------------------------------


def draw_scene(rng: np.random.Generator, size: int) -> Scene:
    """A random scene of `size` x `size` pixels."""
    # 1. What there is, and in which cells, in reading order. 2. A background without a clue.
    # 3. Each thing in a random colour, drawn into its cell. The order of the draws is the data's.
    kinds = _kinds(rng)
    cells = np.sort(rng.choice(GRID * GRID, len(kinds), replace=False))
    picture = _background(rng, size)
    objects = []
    for kind, cell in zip(kinds, cells, strict=True):
        colour = str(rng.choice(list(COLOURS)))
        objects.append(_place(picture, kind, colour, divmod(int(cell), GRID), rng))
    return Scene(picture, tuple(objects), _absent(kinds))


def _kinds(rng: np.random.Generator) -> list[str]:
    """Two to four different things, mostly of one theme."""
    theme = list(THEMES.values())[rng.integers(len(THEMES))]
    pool = theme if rng.random() < SHARE_OF_ONE_THEME else KINDS
    return [pool[i] for i in rng.choice(len(pool), int(rng.integers(2, 5)), replace=False)]


def _absent(kinds: list[str]) -> tuple[str, ...]:
    """What else the scene's theme has: that of most things, the first among equals."""
    themes = [next(theme for theme in THEMES.values() if kind in theme) for kind in kinds]
    return tuple(kind for kind in max(themes, key=themes.count) if kind not in kinds)


def _background(rng: np.random.Generator, size: int) -> Image.Image:
    """A pale colour that runs into another one in a random direction."""
    ends = rng.integers((214, 220, 214), (251, 253, 251), (2, 3))
    angle = rng.uniform(0, 2 * np.pi)
    x = np.linspace(-0.5, 0.5, size)
    slope = np.clip(0.5 + np.cos(angle) * x[None] + np.sin(angle) * x[:, None], 0, 1)[..., None]
    return Image.fromarray(np.round(ends[0] * (1 - slope) + ends[1] * slope).astype(np.uint8))


def _place(
    picture: Image.Image, kind: str, colour: str, cell: tuple[int, int], rng: np.random.Generator
) -> SceneObject:
    """Draw one thing somewhere in its cell (row, column); sizes differ, nothing leaves the cell."""
    size = picture.width
    edge = size // GRID
    origin = [round(i * size / GRID) if i < GRID - 1 else size - edge for i in reversed(cell)]
    side = edge * rng.uniform(0.8, 0.98)
    left, top = rng.uniform(0, edge - side, 2)
    drawing, box = sprite(kind, colour, edge, float(side), float(left), float(top))
    picture.paste(drawing, (origin[0], origin[1]), drawing)
    x0, y0, x1, y1 = (round((origin[i % 2] + value) / size, 4) for i, value in enumerate(box))
    return SceneObject(name=kind, colour=colour, box=(x0, y0, x1, y1))


def _png(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()


# ---- words ---------------------------------------------------------------------------------------


def with_article(words: str) -> str:
    """`words` after "a" or "an".

    >>> with_article("umbrella"), with_article("red umbrella")
    ('an umbrella', 'a red umbrella')
    """
    return f"{'an' if words[0] in 'aeiou' else 'a'} {words}"


def listing(things: list[tuple[str, str]]) -> str:
    """A sentence that lists (colour, name) pairs.

    >>> listing([("red", "house"), ("green", "tree"), ("blue", "car")])
    'the picture shows a red house, a green tree and a blue car.'
    """
    *first, last = [with_article(f"{colour} {name}") for colour, name in things]
    others = f"{', '.join(first)} and " if first else ""
    return f"the picture shows {others}{last}."


def _texts(kind: str, question: str, answer: str, noisy: str = "") -> Texts:
    return {"kind": kind, "question": question, "answer": answer, "noisy_answer": noisy}


def _describe(scene: Scene, noise: np.random.Generator, caption_noise: float) -> Row:
    things = [(o.colour, o.name) for o in scene.objects]
    habitual = _by_habit(things, noise, caption_noise)
    noisy = listing(habitual) if habitual != things else ""
    return "describe", _texts("describe", "describe the picture.", listing(things), noisy)


def _by_habit(
    things: list[tuple[str, str]], noise: np.random.Generator, caption_noise: float
) -> list[tuple[str, str]]:
    """The things as habit has them: some in their usual colour, absent companions at the end."""
    # 1. Everything that is there, some of it in the colour that such things usually have.
    named = [
        (USUAL_COLOURS[name] if noise.random() < COLOUR_HABIT * caption_noise else colour, name)
        for colour, name in things
    ]
    # 2. What usually comes along and is not there, in any colour.
    present = {name for _, name in things}
    for companion, strength in (COMPANIONS[name] for _, name in things if name in COMPANIONS):
        if companion not in present and noise.random() < strength * caption_noise:
            named.append((str(noise.choice(list(COLOURS))), companion))
    return named


def _exists(
    scene: Scene, world: np.random.Generator, noise: np.random.Generator, caption_noise: float
) -> list[Row]:
    """One question about something present, one about something absent."""
    # 1. The absent thing is mostly one of the scene's theme, which is harder to deny.
    present = [o.name for o in scene.objects]
    others = [kind for kind in KINDS if kind not in present and kind not in scene.absent]
    pool = list(scene.absent) if world.random() < SHARE_OF_LIKELY_NEGATIVES else others
    positive, negative = str(world.choice(present)), str(world.choice(pool))
    # 2. Habit says yes to an absent companion, as strongly as its strongest partner names it.
    partners = [COMPANIONS[name] for name in present if name in COMPANIONS]
    habit = max([strength for name, strength in partners if name == negative], default=0.0)
    is_fooled = noise.random() < habit * caption_noise
    rows = []
    for name, is_there in ((positive, True), (negative, False)):
        yes = f"yes, there is {with_article(name)}."
        answer = yes if is_there else f"no, there is no {name}."
        noisy = yes if is_fooled and not is_there else ""
        texts = _texts("exists", f"is there {with_article(name)}?", answer, noisy)
        rows.append((f"exists-{name}", texts))
    return rows


def _colour(scene: Scene, world: np.random.Generator) -> Row:
    thing = scene.objects[world.integers(len(scene.objects))]
    question, answer = f"what colour is the {thing.name}?", f"the {thing.name} is {thing.colour}."
    return f"colour-{thing.name}", _texts("colour", question, answer)
