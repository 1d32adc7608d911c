"""The drawn worlds: little scenes with exact ground truth, and what is asked of them.

A scene has a few different things in the cells of a 3 x 3 grid. Things belong to four themes, and
most scenes stay in one theme or two, so that things occur together. Training captions follow habit
where they do not follow the picture, as captions crawled from the web do: half of the things have a
companion that is named along with them whether it is there or not, and every thing has a usual
colour. A model that trusts habits hallucinates where they are strong; nothing in the pictures
follows them. `adapt/data/worlds.py` has the things, the habits and the two worlds, of which
`difficulty` chooses one.

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

from adapt.data.captions import Habit, Said, asked, one_of
from adapt.data.drawings import sprite
from adapt.data.pen import COLOURS
from adapt.data.schema import SPLITS, Example, SceneObject, Vocabulary
from adapt.data.settings import Difficulty, ScenesConfig
from adapt.data.worlds import KINDS, PLURALS, SYNONYMS, THEMES, WORLDS, World
from adapt.progress import track

GRID = 3
SHARE_WITHIN_THEMES = 0.8  # of the scenes


@dataclass(frozen=True, kw_only=True)
class SceneExample(Example):
    """A row of the drawn world.

    `noisy_answer` is what a crawled corpus would say, "" for what is true; only training on scratch
    reads it.
    """

    noisy_answer: str


@dataclass(frozen=True)
class Scene:
    """A picture, its objects in reading order with their sizes, and what else its themes have."""

    picture: Image.Image
    objects: tuple[SceneObject, ...]
    sizes: tuple[str, ...]
    absent: tuple[str, ...]

    @property
    def said(self) -> list[Said]:
        """The objects as a true caption names them."""
        pairs = zip(self.sizes, self.objects, strict=True)
        return [Said(size, o.colour, o.name) for size, o in pairs]


def vocabulary() -> Vocabulary:
    """Every thing of the worlds with its words, and the colours."""
    words = {kind: (kind, PLURALS.get(kind, f"{kind}s"), *SYNONYMS.get(kind, ())) for kind in KINDS}
    return Vocabulary(objects=words, colours=tuple(COLOURS))


def drawn(config: ScenesConfig, split: str, seed: int) -> Iterator[SceneExample]:
    """All rows of a split of the world that `config` describes."""
    about: Any = {"size": config.image_size, "caption_noise": config.caption_noise}
    for index in track(range(config.images(split)), f"drawing {split}"):
        yield from examples(split, index, **about, seed=seed, difficulty=config.difficulty)


def examples(
    split: str,
    index: int,
    *,
    size: int,
    caption_noise: float,
    seed: int,
    difficulty: Difficulty = "default",
) -> list[SceneExample]:
    """The rows about image `index` of `split`: one describe, two exists (yes, no), one colour."""
    # 1. Two random streams of this image's own: one draws and asks, the other one is habit.
    keys = [(SPLITS.index(split), index, stream) for stream in (0, 1)]
    seeds = [np.random.SeedSequence(seed, spawn_key=key) for key in keys]
    truth, noise = map(np.random.default_rng, seeds)
    # 2. The picture, which alone decides what is true.
    world = WORLDS[difficulty]
    scene = draw_scene(truth, size, world)
    # 3. Its questions with true answers; noisy ones are for training alone.
    habit = Habit(world, noise, caption_noise if split == "train" else 0.0)
    rows = asked(scene.said, scene.absent, truth, habit)
    shared: dict[str, Any] = {"image_id": f"{split}-{index:05d}", "images": (_png(scene.picture),)}
    shared |= {"history": (), "objects": scene.objects, "absent": scene.absent}
    return [
        SceneExample(**texts, **shared, id=f"{shared['image_id']}-{name}") for name, texts in rows
    ]


# ---- pictures ------------------------------------------------------------------------------------


def draw_scene(rng: np.random.Generator, size: int, world: World = WORLDS["default"]) -> Scene:
    """A random scene of `size` x `size` pixels."""
    # 1. What there is, and in which cells, in reading order. 2. A background without a clue.
    # 3. Each thing in a random colour, and where sizes are spoken of, in a random one of these,
    #    drawn into its cell. The order of the draws is the data's.
    kinds = _kinds(rng, world)
    cells = np.sort(rng.choice(GRID * GRID, len(kinds), replace=False))
    picture = _background(rng, size)
    objects, sizes = [], []
    for kind, cell in zip(kinds, cells, strict=True):
        colour = str(rng.choice(list(COLOURS)))
        sizes.append(one_of(world.sides, rng))
        sides, at = world.sides[sizes[-1]], divmod(int(cell), GRID)
        objects.append(_place(picture, kind, colour, at, sides, rng))
    return Scene(picture, tuple(objects), tuple(sizes), _absent(kinds, world.themes))


def _kinds(rng: np.random.Generator, world: World) -> list[str]:
    """Some different things, mostly of one theme or of neighbouring ones."""
    themes, first = list(THEMES.values()), int(rng.integers(len(THEMES)))
    within = [kind for i in range(world.themes) for kind in themes[(first + i) % len(themes)]]
    pool = within if rng.random() < SHARE_WITHIN_THEMES else KINDS
    many = int(rng.integers(world.fewest_things, world.most_things + 1))
    return [pool[i] for i in rng.choice(len(pool), many, replace=False)]


def _absent(kinds: list[str], most: int) -> tuple[str, ...]:
    """What else the scene's themes have: the `most` that most things are of, first among equals."""
    themes = [next(theme for theme in THEMES.values() if kind in theme) for kind in kinds]
    every = dict.fromkeys((*themes, *THEMES.values()))  # a theme without a thing comes last
    ranked = sorted(every, key=themes.count, reverse=True)[:most]
    return tuple(kind for theme in ranked for kind in theme if kind not in kinds)


def _background(rng: np.random.Generator, size: int) -> Image.Image:
    """A pale colour that runs into another one in a random direction."""
    ends = rng.integers((214, 220, 214), (251, 253, 251), (2, 3))
    angle = rng.uniform(0, 2 * np.pi)
    x = np.linspace(-0.5, 0.5, size)
    slope = np.clip(0.5 + np.cos(angle) * x[None] + np.sin(angle) * x[:, None], 0, 1)[..., None]
    return Image.fromarray(np.round(ends[0] * (1 - slope) + ends[1] * slope).astype(np.uint8))


def _place(
    picture: Image.Image,
    kind: str,
    colour: str,
    cell: tuple[int, int],
    sides: tuple[float, float],
    rng: np.random.Generator,
) -> SceneObject:
    """Draw one thing somewhere in its cell (row, column); sides differ, nothing leaves the cell."""
    size = picture.width
    edge = size // GRID
    origin = [round(i * size / GRID) if i < GRID - 1 else size - edge for i in reversed(cell)]
    side = edge * rng.uniform(*sides)
    left, top = rng.uniform(0, edge - side, 2)
    drawing, box = sprite(kind, colour, edge, float(side), float(left), float(top))
    picture.paste(drawing, (origin[0], origin[1]), drawing)
    x0, y0, x1, y1 = (round((origin[i % 2] + value) / size, 4) for i, value in enumerate(box))
    return SceneObject(name=kind, colour=colour, box=(x0, y0, x1, y1))


def _png(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()
