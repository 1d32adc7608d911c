"""Whether copies of pictures are found and named, and how often others are taken for copies.

    python -m benchmarks.likeness [--pictures 4800] [--copies 100]

Four worlds that are made here, without a download: the drawn scenes of `adapt/data/scenes.py` in
two sizes, which have pale grounds and little on them; photographs (smooth patches, objects, noise);
and pages of random words that are all laid out alike, the hardest. In each, every picture is
compared with every other; what is found is a false alarm. Then copies of some are made in ways that
data sets show, and looked for among all of them.
"""

import argparse
import io
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from adapt.data import scenes
from adapt.data.fingerprint import RECORD
from adapt.data.likeness import near
from adapt.data.pictures import normalised
from benchmarks.sides import FOLDER, progress, write

LETTERS = list("abcdefghilmnoprstuvwy")


def photograph(rng: np.random.Generator) -> Image.Image:
    """320 x 240: smooth patches of colour, some ellipses, and noise of a random strength."""
    shape = (*rng.integers(3, 9, 2), 3)
    small = Image.fromarray(rng.integers(0, 256, shape, dtype=np.uint8))
    picture = small.resize((320, 240), Image.Resampling.BICUBIC)
    pen = ImageDraw.Draw(picture)
    for _ in range(rng.integers(2, 9)):
        x, y, width, height = (int(v) for v in rng.integers((0, 0, 10, 10), (320, 240, 100, 100)))
        colour = tuple(int(v) for v in rng.integers(0, 256, 3))
        pen.ellipse((x, y, x + width, y + height), colour)
    noisy = np.asarray(picture) + rng.normal(0, rng.uniform(2, 14), (240, 320, 1))
    return Image.fromarray(noisy.clip(0, 255).astype(np.uint8))


def page(rng: np.random.Generator) -> Image.Image:
    """400 x 500: lines of random words inside the same margins, as in every scan of a series."""
    picture = Image.new("RGB", (400, 500), "white")
    pen = ImageDraw.Draw(picture)
    for top in range(30, 470, 14):
        letters = rng.choice(LETTERS, 60)
        letters[rng.random(60) < 0.2] = " "
        pen.text((30, top), "".join(letters), fill="black")
    return picture


def scene(size: int) -> Callable[[np.random.Generator], Image.Image]:
    return lambda rng: scenes.draw_scene(rng, size).picture


@dataclass(frozen=True)
class World:
    """How a picture is made, and which share of the pictures asked for is worth its time."""

    draw: Callable[[np.random.Generator], Image.Image]
    share: float = 1.0


WORLDS: Mapping[str, World] = {
    "scenes of 48 px": World(scene(48)),
    "scenes of 96 px": World(scene(96)),
    "photographs": World(photograph, 0.5),
    "pages": World(page, 0.25),
}


def saved(picture: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def scaled(picture: Image.Image, by: float) -> Image.Image:
    return picture.resize((round(picture.width * by), round(picture.height * by)))


COPIES: Mapping[str, tuple[Callable[[Image.Image], bytes], str]] = {
    "JPEG, quality 90": (lambda p: saved(p, "JPEG", quality=90), "re-encoded"),
    "JPEG, quality 50": (lambda p: saved(p, "JPEG", quality=50), "re-encoded"),
    "JPEG, quality 30": (lambda p: saved(p, "JPEG", quality=30), "re-encoded"),
    "WEBP, quality 50": (lambda p: saved(p, "WEBP", quality=50), "re-encoded"),
    "half": (lambda p: saved(scaled(p, 0.5)), "resized"),
    "half, JPEG 50": (lambda p: saved(scaled(p, 0.5), "JPEG", quality=50), "resized"),
    "one and a half": (lambda p: saved(scaled(p, 1.5), "JPEG", quality=90), "resized"),
    "336 x 336": (lambda p: saved(p.resize((336, 336)), "JPEG", quality=90), "resized"),
    "0.7, nearest pixel": (
        lambda p: saved(p.resize((p.width * 7 // 10, p.height * 7 // 10), 0)),
        "resized",
    ),
    "mirrored, JPEG 75": (
        lambda p: saved(p.transpose(Image.Transpose.FLIP_LEFT_RIGHT), "JPEG", quality=75),
        "flipped",
    ),
    "quarter turn, JPEG 75": (
        lambda p: saved(p.transpose(Image.Transpose.ROTATE_90), "JPEG", quality=75),
        "turned",
    ),
}


def printed(content: bytes) -> bytes:
    return normalised(content).fingerprint


def measured(name: str, world: World, count: int, copies: int) -> tuple[str, dict[str, str]]:
    """A sentence on false alarms in a world, and the shares of copies found and rightly named."""
    count = round(count * world.share)
    drawn = [world.draw(np.random.default_rng((7, number))) for number in range(copies)]
    prints = [printed(saved(picture)) for picture in drawn]
    for number in range(copies, count):
        prints.append(printed(saved(world.draw(np.random.default_rng((7, number))))))
        if number % 1000 == 0:
            progress(f"{name}: picture {number} of {count}")
    alarms, pairs = len(near(prints)), count * (count - 1) // 2
    # None in n: with 95 % confidence the true rate is below 3 / n.
    rate = f"{alarms / pairs:.0e} of pairs" if alarms else f"below {3 / pairs:.0e} of pairs"
    sentence = f"{name}: {alarms} false alarms in {count:,} pictures, {pairs:,} pairs: {rate}."
    shares = {}
    for label, (copy, kind) in COPIES.items():
        found = near([printed(copy(picture)) for picture in drawn], prints)
        right = sum(i == j for i, j, _ in found)
        named = sum(i == j and kind == told for i, j, told in found)
        shares[label] = f"{right / copies:.0%}" + (f" ({named / copies:.0%})" * (named != right))
        assert right == len(found), "a copy is taken for another picture"
    return sentence, shares


def timed(count: int) -> str:
    """How long random fields with a mirrored hundredth take: the time depends on the number."""
    rng = np.random.default_rng(0)
    found = np.zeros(count, RECORD)
    found["digest"], found["size"] = np.arange(count), (640, 480)
    low = rng.normal(0, 60, (count, 8, 8)).repeat(4, axis=1).repeat(4, axis=2)
    found["light"] = (128 + low).clip(0, 255)
    found["colour"] = (128 + rng.normal(0, 20, (count, 2, 8, 8))).clip(0, 255)
    mirrored = found[: count // 100].copy()
    mirrored["digest"] += np.uint64(count)
    for plane in ("light", "colour"):
        mirrored[plane] = mirrored[plane][..., ::-1]
    prints = [row.tobytes() for row in np.concatenate([found, mirrored])]
    start, processor = time.perf_counter(), time.process_time()
    pairs = near(prints)
    wall, used = time.perf_counter() - start, time.process_time() - processor
    assert len(pairs) == len(mirrored), "a mirrored one is missed, or more than these found"
    return f"{count:,} fingerprints: {wall:.0f} s ({used:.0f} s of one processor)."


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Copies of pictures: found, named, false alarms.")
    parser.add_argument("--pictures", type=int, default=4800, help="of a world of scenes")
    parser.add_argument("--copies", type=int, default=100, help="pictures that are copied")
    parser.add_argument("--timed", type=int, default=100_000, help="fingerprints to time")
    parser.add_argument("--out", type=Path, default=FOLDER, help="folder of the dated file")
    options = parser.parse_args(arguments)
    options.device = "cpu"
    notes, columns = [timed(options.timed)], {}
    for name, world in WORLDS.items():
        sentence, columns[name] = measured(name, world, options.pictures, options.copies)
        notes.append(sentence)
        progress(sentence)
    notes.append("Copies found, and in brackets those rightly named where that is fewer:")
    rows = [
        {"copy": label, "is": kind, **{name: columns[name][label] for name in WORLDS}}
        for label, (_, kind) in COPIES.items()
    ]
    text = "\n\n".join(notes)
    write("likeness", "Likeness: copies and false alarms", [text], rows, options)


if __name__ == "__main__":
    main()
