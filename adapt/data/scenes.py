"""The default world: little drawn scenes with exact ground truth, and what people ask and say about
them.

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
from dataclasses import dataclass

import numpy as np
from PIL import Image

from adapt.data.drawings import sprite
from adapt.data.pen import COLOURS
from adapt.data.schema import SPLITS, Example, SceneObject, Vocabulary

THEMES: dict[str, tuple[str, ...]] = {
    "town": ("house", "car", "bus", "bicycle", "tree", "flag"),
    "kitchen": ("cup", "bottle", "apple", "banana", "fork", "cake"),
    "room": ("chair", "table", "bed", "lamp", "clock", "cat"),
    "beach": ("boat", "fish", "umbrella", "ball", "kite", "star"),
}
KINDS = tuple(kind for theme in THEMES.values() for kind in theme)
PLURALS = {"bus": "buses", "fish": "fishes"}
SYNONYMS = {"bicycle": ("bike", "bikes"), "cat": ("kitten", "kittens"), "cup": ("mug", "mugs")}
# thing: what habit names along with it, and how strong that habit is against `caption_noise`
COMPANIONS = {
    theme[first]: (theme[first + 1], 2 * (3 * i + first // 2 + 1) / 13)
    for i, theme in enumerate(THEMES.values())
    for first in (0, 2, 4)
}
USUAL_COLOURS = {kind: list(COLOURS)[i % len(COLOURS)] for i, kind in enumerate(KINDS)}
COLOUR_HABIT = 0.6  # strength of saying the usual colour, against `caption_noise`
GRID = 3
SHARE_OF_ONE_THEME = 0.8
SHARE_OF_LIKELY_NEGATIVES = (
    0.8  # of the "is there" questions about something absent: same theme, as in POPE
)
SMALLEST_IMAGE = 24  # below 8 pixels a cell nobody can tell the things apart


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


def examples(
    split: str, index: int, *, size: int, caption_noise: float, seed: int
) -> list[Example]:
    """The rows about image `index` of `split`: one describe, two exists (yes, no), one colour."""
    world, noise = (
        np.random.default_rng(
            np.random.SeedSequence(seed, spawn_key=(SPLITS.index(split), index, stream))
        )
        for stream in (0, 1)
    )
    scene = draw_scene(world, size)
    if split != "train":
        caption_noise = 0.0
    image_id = f"{split}-{index:05d}"
    rows = [
        _describe(scene, noise, caption_noise),
        *_exists(scene, world, noise, caption_noise),
        _colour(scene, world),
    ]
    shared = {
        "image_id": image_id,
        "image": _png(scene.picture),
        "objects": scene.objects,
        "absent": scene.absent,
    }
    return [Example(id=f"{image_id}-{name}", **texts, **shared) for name, texts in rows]  # type: ignore[arg-type]


# ---- pictures ------------------------------------------------------------------------------------


def draw_scene(rng: np.random.Generator, size: int) -> Scene:
    """A random scene of `size` x `size` pixels."""
    kinds = _kinds(rng)
    cells = np.sort(rng.choice(GRID * GRID, len(kinds), replace=False))  # reading order
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
    """What the scene's theme has besides; a mixed scene's theme is the commonest one, the first
    among equals.
    """
    themes = [next(theme for theme in THEMES.values() if kind in theme) for kind in kinds]
    return tuple(kind for kind in max(themes, key=themes.count) if kind not in kinds)


def _background(rng: np.random.Generator, size: int) -> Image.Image:
    """A pale colour that runs into another one in a random direction: no clue to what is in the
    picture.
    """
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
    return (
        f"the picture shows {', '.join(first)} and {last}."
        if first
        else f"the picture shows {last}."
    )


def _describe(
    scene: Scene, noise: np.random.Generator, caption_noise: float
) -> tuple[str, dict[str, str]]:
    things = [(o.colour, o.name) for o in scene.objects]
    habitual = _by_habit(things, noise, caption_noise)
    noisy = listing(habitual) if habitual != things else ""
    question = "describe the picture."
    return "describe", {
        "kind": "describe",
        "question": question,
        "answer": listing(things),
        "noisy_answer": noisy,
    }


def _by_habit(
    things: list[tuple[str, str]], noise: np.random.Generator, caption_noise: float
) -> list[tuple[str, str]]:
    """The things as habit has them: some in their usual colour, and companions that are not there
    at the end.
    """
    said = [
        (USUAL_COLOURS[n] if noise.random() < COLOUR_HABIT * caption_noise else colour, n)
        for colour, n in things
    ]
    present = {name for _, name in things}
    for companion, strength in (COMPANIONS[name] for _, name in things if name in COMPANIONS):
        if companion not in present and noise.random() < strength * caption_noise:
            said.append((str(noise.choice(list(COLOURS))), companion))
    return said


def _exists(
    scene: Scene, world: np.random.Generator, noise: np.random.Generator, caption_noise: float
) -> list[tuple[str, dict[str, str]]]:
    """One question about something present, one about something absent; habit says yes to absent
    companions.
    """
    present = [o.name for o in scene.objects]
    others = [kind for kind in KINDS if kind not in present and kind not in scene.absent]
    pool = list(scene.absent) if world.random() < SHARE_OF_LIKELY_NEGATIVES else others
    positive, negative = str(world.choice(present)), str(world.choice(pool))
    habit = max(
        [COMPANIONS[n][1] for n in present if n in COMPANIONS and COMPANIONS[n][0] == negative],
        default=0.0,
    )
    fooled = noise.random() < habit * caption_noise
    rows = []
    for name, answer, noisy in (
        (positive, f"yes, there is {with_article(positive)}.", ""),
        (
            negative,
            f"no, there is no {negative}.",
            f"yes, there is {with_article(negative)}." if fooled else "",
        ),
    ):
        question = f"is there {with_article(name)}?"
        texts = {"kind": "exists", "question": question, "answer": answer, "noisy_answer": noisy}
        rows.append((f"exists-{name}", texts))
    return rows


def _colour(scene: Scene, world: np.random.Generator) -> tuple[str, dict[str, str]]:
    thing = scene.objects[world.integers(len(scene.objects))]
    question, answer = f"what colour is the {thing.name}?", f"the {thing.name} is {thing.colour}."
    return f"colour-{thing.name}", {
        "kind": "colour",
        "question": question,
        "answer": answer,
        "noisy_answer": "",
    }
