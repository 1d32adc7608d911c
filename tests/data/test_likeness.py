"""Likeness: planted copies are found and named, others are not, and groups hold together."""

import io
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw

from adapt.data import fingerprint, likeness, scenes
from adapt.data.fingerprint import FINGERPRINT_BYTES, RECORD, WAYS, lying, outline, patches, places
from adapt.data.likeness import groups, near
from adapt.data.pictures import normalised, open_picture


def found(a: bytes, b: bytes) -> str:
    """What `b` is of `a`; "" where they are not alike."""
    pairs = near([a], [b])
    return pairs[0][2] if pairs else ""


def saved(picture: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def scene(number: int, size: int = 96) -> Image.Image:
    return scenes.draw_scene(np.random.default_rng(number), size).picture


def photograph(number: int) -> Image.Image:
    """Smooth patches, some objects, and noise."""
    rng = np.random.default_rng(number)
    small = Image.fromarray(rng.integers(0, 256, (5, 7, 3), dtype=np.uint8))
    picture = small.resize((320, 240), Image.Resampling.BICUBIC)
    pen = ImageDraw.Draw(picture)
    for _ in range(4):
        x, y, side = (int(value) for value in rng.integers((0, 0, 20), (300, 220, 100)))
        pen.ellipse((x, y, x + side, y + side), tuple(int(v) for v in rng.integers(0, 256, 3)))
    noisy = np.asarray(picture) + rng.normal(0, 6, (240, 320, 3))
    return Image.fromarray(noisy.clip(0, 255).astype(np.uint8))


def page(number: int) -> Image.Image:
    """A white page of random words, laid out as all the others are."""
    rng = np.random.default_rng(number)
    picture = Image.new("RGB", (400, 500), "white")
    pen = ImageDraw.Draw(picture)
    for top in range(30, 470, 14):
        words = ("".join(rng.choice(list("abcdeilmnorst"), rng.integers(2, 9))) for _ in range(9))
        pen.text((30, top), " ".join(words), fill="black")
    return picture


MADE: dict[str, Callable[[int], Image.Image]] = {
    "scene": scene,
    "photograph": photograph,
    "page": page,
}
COPIES: dict[str, tuple[Callable[[Image.Image], bytes], str]] = {
    "the same": (saved, "identical"),
    "JPEG": (lambda p: saved(p, "JPEG", quality=75), "re-encoded"),
    "WEBP": (lambda p: saved(p, "WEBP", quality=60), "re-encoded"),
    "half": (lambda p: saved(p.resize((p.width // 2, p.height // 2))), "resized"),
    "larger": (lambda p: saved(p.resize((p.width * 3 // 2, p.height * 3 // 2))), "resized"),
    "square": (lambda p: saved(p.resize((336, 336)), "JPEG", quality=90), "resized"),
    "mirrored": (lambda p: saved(p.transpose(Image.Transpose.FLIP_LEFT_RIGHT)), "flipped"),
    "upside down": (lambda p: saved(p.transpose(Image.Transpose.FLIP_TOP_BOTTOM)), "flipped"),
    "on its side": (lambda p: saved(p.transpose(Image.Transpose.ROTATE_90), "JPEG"), "turned"),
    "half a turn": (lambda p: saved(p.transpose(Image.Transpose.ROTATE_180)), "turned"),
}


def printed(content: bytes) -> bytes:
    return normalised(content).fingerprint


def test_a_fingerprint_has_a_fixed_size_and_only_depends_on_what_is_stored() -> None:
    content = saved(photograph(0))
    made = printed(content)
    assert len(made) == FINGERPRINT_BYTES == printed(saved(scene(0, 48))).__len__()
    assert made == printed(normalised(content).content)
    (record,) = fingerprint.records([made])
    assert record["size"].tolist() == [320, 240]
    assert int(record["digest"]).to_bytes(8, "little").hex() == normalised(content).digest[:16]


@pytest.mark.parametrize("world", MADE)
@pytest.mark.parametrize("copy", COPIES)
def test_a_planted_copy_is_found_and_named(world: str, copy: str) -> None:
    originals = [MADE[world](number) for number in range(3)]
    copied, kind = COPIES[copy]
    prints = [printed(saved(picture)) for picture in originals]
    copies = [printed(copied(picture)) for picture in originals]
    assert near(prints, copies) == [(i, i, kind) for i in range(3)]
    assert near(prints + copies) == [(i, i + 3, kind) for i in range(3)]
    assert found(prints[0], copies[0]) == kind
    assert found(prints[0], copies[1]) == ""


@pytest.mark.parametrize(("world", "count"), [("scene", 120), ("photograph", 30), ("page", 16)])
def test_pictures_of_one_kind_are_not_copies_of_each_other(world: str, count: int) -> None:
    size = (48,) if world == "scene" else ()
    assert near([printed(saved(MADE[world](number, *size))) for number in range(count)]) == []


def test_another_colour_is_another_picture() -> None:
    red, blue = Image.new("RGB", (96, 96), "white"), Image.new("RGB", (96, 96), "white")
    for picture, colour in ((red, (200, 60, 60)), (blue, (50, 80, 220))):
        ImageDraw.Draw(picture).ellipse((20, 20, 45, 45), colour)
    assert found(printed(saved(red)), printed(saved(blue))) == ""
    white, grey = (Image.new("RGB", (64, 64), shade) for shade in ("white", (160, 160, 160)))
    assert found(printed(saved(white)), printed(saved(grey))) == ""


def test_of_a_symmetric_picture_the_plainest_likeness_is_named() -> None:
    picture = Image.new("RGB", (96, 96), "white")
    ImageDraw.Draw(picture).ellipse((30, 30, 65, 65), (200, 60, 60))
    assert found(printed(saved(picture)), printed(saved(picture, "JPEG"))) == ("re-encoded")


def random_records(count: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    found = np.zeros(count, RECORD)
    found["digest"] = np.arange(count)
    found["light"] = rng.integers(0, 256, (count, 32, 32))
    found["colour"] = rng.integers(0, 256, (count, 2, 8, 8))
    return found


@pytest.mark.parametrize("way", range(WAYS))
def test_an_outline_is_the_same_however_a_picture_lies(way: int) -> None:
    found = random_records(5)
    moved = found.copy()
    moved["light"], moved["colour"] = lying(found["light"], way), lying(found["colour"], way)
    assert np.array_equal(patches(moved), patches(found)[:, places(way)])
    assert np.array_equal(outline(patches(moved)), outline(patches(found)))


def test_outlines_are_never_further_apart_than_patches() -> None:
    one, other = patches(random_records(50)), patches(random_records(50, seed=1))
    apart = np.abs(outline(one) - outline(other)).max(1)
    assert (apart <= np.abs(one - other).max(1) + 1e-4).all()


@pytest.mark.parametrize("dense", [0, 1 << 40])
def test_pairs_are_the_same_in_blocks_and_one_by_one(
    dense: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    pictures = [photograph(number) for number in range(6)]
    prints = [printed(saved(picture)) for picture in pictures]
    prints += [printed(saved(picture, "JPEG")) for picture in pictures]
    expected = near(prints)
    monkeypatch.setattr(likeness, "DENSE", dense)
    monkeypatch.setattr(likeness, "PAIRS", 3)
    monkeypatch.setattr(likeness, "BLOCK", 2)
    assert near(prints) == expected == [(i, i + 6, "re-encoded") for i in range(6)]


def test_many_copies_of_one_picture_are_one_group_with_few_pairs() -> None:
    rng = np.random.default_rng(0)
    blank = np.zeros(400, RECORD)
    blank["digest"], blank["size"], blank["colour"] = np.arange(400) // 2, 64, 128
    blank["light"] = 250
    blank["light"][:300] += rng.random((300, 32, 32)) < 0.05  # cells that are a level brighter
    blank["light"][::2] = blank["light"][1::2]  # each has a double
    pairs = near([row.tobytes() for row in blank])
    assert len(pairs) == 399 and sum(kind == "identical" for *_, kind in pairs) == 200
    assert groups(400, pairs).tolist() == [0] * 400


def test_groups_are_named_by_their_first() -> None:
    pairs = [(4, 5, "resized"), (1, 3, "flipped"), (3, 5, "identical")]
    assert groups(7, pairs).tolist() == [0, 1, 2, 1, 1, 1, 6]
    assert groups(2, []).tolist() == [0, 1] and near([]) == [] and near([], []) == []


def test_test_pictures_that_are_training_pictures_under_other_names_are_found() -> None:
    train = {f"train-{number}": saved(scene(number)) for number in range(20)}
    test = {f"x{name}": content for name, content in list(train.items())[5:10]}
    test |= {f"test-{number}": saved(scene(100 + number)) for number in range(5)}
    turned = open_picture(train["train-3"]).transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    test["test-mirror"] = saved(turned, "JPEG", quality=80)
    found = near([printed(c) for c in test.values()], [printed(c) for c in train.values()])
    twice = near([printed(c) for c in test.values()], [printed(c) for c in train.values()] * 2)
    assert twice == found
    names = [(list(test)[i], list(train)[j], kind) for i, j, kind in found]
    expected = [(f"xtrain-{number}", f"train-{number}", "identical") for number in range(5, 10)]
    assert names == [*expected, ("test-mirror", "train-3", "flipped")]
