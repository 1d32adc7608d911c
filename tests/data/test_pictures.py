"""Pictures: every kind of file comes out right or is refused, and what is stored all decoders see.

The references are NumPy on the pixels that were written, Pillow's own conversions, and
`datasets.Image()`.
"""

import io
import random
import struct
import zlib
from collections.abc import Callable
from typing import Any

import datasets
import numpy as np
import pytest
from PIL import Image, ImageCms, ImageOps

from adapt.data import pictures
from adapt.data.pictures import PictureProblem, normalised, open_picture, shown_size

pytestmark = pytest.mark.filterwarnings("ignore::Warning:PIL")

RNG = np.random.default_rng(0)
WIDTH, HEIGHT = 37, 23
SMALL = Image.fromarray(RNG.integers(0, 256, (5, 7, 3), dtype=np.uint8))
PHOTO = SMALL.resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC)
ALPHA = Image.linear_gradient("L").resize(PHOTO.size)
DEEP = RNG.integers(0, 65536, (HEIGHT, WIDTH, 4)).astype(np.uint16)


def saved(picture: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    picture.copy().save(buffer, kind, **options)
    return buffer.getvalue()


def clear() -> Image.Image:
    picture = PHOTO.copy()
    picture.putalpha(ALPHA)
    return picture


def turned(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


def chunk(name: bytes, content: bytes) -> bytes:
    body = name + content
    return struct.pack(">I", len(content)) + body + struct.pack(">I", zlib.crc32(body))


def raw_png(
    size: tuple[int, int], depth: int, colour: int, rows: bytes, more: bytes = b""
) -> bytes:
    head = struct.pack(">IIBBBBB", *size, depth, colour, 0, 0, 0)
    parts = (chunk(b"IHDR", head), more, chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def deep_png(channels: int, colour: int, more: bytes = b"") -> bytes:
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in DEEP[..., :channels])
    return raw_png((WIDTH, HEIGHT), 16, colour, rows, more)


def frames(kind: str, **options: Any) -> bytes:
    others = [ImageOps.invert(PHOTO), ImageOps.mirror(PHOTO)]
    return saved(PHOTO, kind, save_all=True, append_images=others, **options)


KEPT: dict[str, bytes] = {
    "JPEG": saved(PHOTO, "JPEG"),
    "progressive JPEG": saved(PHOTO, "JPEG", progressive=True),
    "grey JPEG": saved(PHOTO.convert("L"), "JPEG"),
    "JPEG with a profile": saved(PHOTO, "JPEG", icc_profile=b"x" * 300),
    "JPEG with EXIF": saved(PHOTO, "JPEG", exif=turned(1)),
    "JPEG with nonsense in EXIF": saved(PHOTO, "JPEG", exif=turned(9)),
    "several JPEGs in one": frames("MPO"),
    "PNG": saved(PHOTO, "PNG"),
    "grey PNG": saved(PHOTO.convert("L"), "PNG"),
    "WEBP": saved(PHOTO, "WEBP"),
}
CHANGED: dict[str, tuple[bytes, str]] = {
    "CMYK JPEG": (saved(PHOTO.convert("CMYK"), "JPEG"), "CMYK to RGB"),
    "XMP": (saved(PHOTO, "JPEG", xmp=b'<x tiff:Orientation="6"/>'), "turned upright"),
    "palette": (saved(PHOTO.quantize(16), "PNG"), "P to RGB"),
    "clear palette": (saved(PHOTO.quantize(16), "PNG", transparency=3), "white behind"),
    "RGBA": (saved(clear(), "PNG"), "white behind transparency"),
    "LA": (saved(clear().convert("LA"), "PNG"), "white behind transparency"),
    "clear WEBP": (saved(clear(), "WEBP", lossless=True), "white behind transparency"),
    "clear colour": (
        saved(PHOTO, "PNG", transparency=PHOTO.getpixel((3, 3))),
        "white behind transparency",
    ),
    "1 bit": (saved(PHOTO.convert("1"), "PNG"), "1 to RGB"),
    "16-bit RGB": (deep_png(3, 2), "16 bits to 8"),
    "GIF": (saved(PHOTO, "GIF"), "GIF to PNG"),
    "animated GIF": (frames("GIF"), "the first of several frames"),
    "animated PNG": (frames("PNG"), "the first of several frames"),
    "animated WEBP": (frames("WEBP", lossless=True), "the first of several frames"),
    "BMP": (saved(PHOTO, "BMP"), "BMP to PNG"),
    "TIFF": (saved(PHOTO, "TIFF", compression="tiff_lzw"), "TIFF to PNG"),
    "CMYK TIFF": (saved(PHOTO.convert("CMYK"), "TIFF"), "CMYK to RGB"),
    "TIFF of pages": (frames("TIFF"), "the first of several frames"),
}


def by_pillow(content: bytes) -> Image.Image:
    """What Pillow's own functions make of a file, one after the other."""
    picture = ImageOps.exif_transpose(Image.open(io.BytesIO(content)))
    if picture.has_transparency_data:
        layer = picture.convert("RGBA")
        picture = Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer)
    return picture.convert("RGB")


def assert_same(one: Image.Image, other: Image.Image) -> None:
    assert (one.mode, one.size) == (other.mode, other.size)
    assert one.tobytes() == other.tobytes()


def assert_all_see_it(content: bytes) -> None:
    """Whoever decodes what is stored sees what `open_picture` sees, of the original as well."""
    ours, stored = open_picture(content), normalised(content)
    assert_same(ours, open_picture(stored.content))
    assert_same(ours, Image.open(io.BytesIO(stored.content)).convert("RGB"))
    decoded = datasets.Image().decode_example({"bytes": stored.content, "path": None})
    assert_same(ours, decoded.convert("RGB"))
    assert_same(ours, ImageOps.exif_transpose(ours))
    assert stored.size == ours.size == shown_size(content) == shown_size(stored.content)
    again = normalised(stored.content)
    assert (again.content, again.digest) == (stored.content, stored.digest)


@pytest.mark.parametrize("name", KEPT)
def test_what_everybody_sees_alike_is_kept_to_the_last_byte(name: str) -> None:
    assert normalised(KEPT[name]).content == KEPT[name]
    assert_same(open_picture(KEPT[name]), by_pillow(KEPT[name]))
    assert_all_see_it(KEPT[name])


@pytest.mark.parametrize("name", CHANGED)
def test_what_decoders_see_differently_is_stored_as_png_with_a_note(name: str) -> None:
    content, note = CHANGED[name]
    stored = normalised(content)
    assert stored.content.startswith(b"\x89PNG") and note in " ".join(stored.notes)
    assert_same(open_picture(content), by_pillow(content))
    assert_all_see_it(content)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(2, 9))
def test_a_camera_that_was_turned(kind: str, orientation: int) -> None:
    lossless = {"WEBP": {"lossless": True}, "JPEG": {"quality": 100, "subsampling": 0}}
    content = saved(PHOTO, kind, exif=turned(orientation), **lossless.get(kind, {}))
    # EXIF: where the first row and the first column of the file are seen.
    upright = {
        2: lambda a: a[:, ::-1],
        3: lambda a: a[::-1, ::-1],
        4: lambda a: a[::-1],
        5: lambda a: a.swapaxes(0, 1),
        6: lambda a: a.swapaxes(0, 1)[:, ::-1],
        7: lambda a: a.swapaxes(0, 1)[::-1, ::-1],
        8: lambda a: a.swapaxes(0, 1)[::-1],
    }[orientation](np.asarray(PHOTO).astype(int))
    seen = np.asarray(open_picture(content))
    assert seen.shape == upright.shape
    assert np.abs(seen - upright).max() <= (8 if kind == "JPEG" else 0)
    assert_all_see_it(content)
    stored = normalised(content)
    assert f"turned upright (EXIF orientation {orientation})" in stored.notes


def test_exif_behind_the_pixels_of_a_png_counts() -> None:
    content = saved(PHOTO, "PNG")
    end = content.rindex(b"IEND") - 4
    exif = turned(6).tobytes().removeprefix(b"Exif\0\0")
    behind = content[:end] + chunk(b"eXIf", exif) + content[end:]
    assert open_picture(behind).size == (HEIGHT, WIDTH)
    assert_all_see_it(behind)


def on_white(grey_or_rgb: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    share = alpha[..., None] / 255
    return grey_or_rgb * share + 255 * (1 - share)


@pytest.mark.parametrize(("channels", "colour"), [(1, 0), (3, 2), (2, 4), (4, 6)])
def test_of_16_bits_the_high_byte_is_seen(channels: int, colour: int) -> None:
    content, high = deep_png(channels, colour), (DEEP >> 8).astype(float)
    expected = high[..., :1].repeat(3, 2) if channels < 3 else high[..., :3]
    if channels in (2, 4):
        expected = on_white(expected, high[..., channels - 1])
    assert np.abs(np.asarray(open_picture(content)) - expected).max() < 1
    assert "16 bits to 8" in normalised(content).notes
    assert_all_see_it(content)


@pytest.mark.parametrize(("channels", "colour"), [(1, 0), (3, 2)])
def test_a_transparent_value_of_16_bits_is_white(channels: int, colour: int) -> None:
    mark = DEEP[4, 9, :channels].astype(">u2").tobytes()
    content = deep_png(channels, colour, chunk(b"tRNS", mark))
    assert open_picture(content).getpixel((9, 4)) == (255, 255, 255)
    assert "white behind transparency" in normalised(content).notes
    assert_all_see_it(content)


@pytest.mark.parametrize("white_is_zero", [False, True])
def test_16_bits_of_tiff(white_is_zero: bool) -> None:
    picture = Image.fromarray(DEEP[..., 0])
    content = saved(picture, "TIFF", tiffinfo={262: 0 if white_is_zero else 1})
    high = DEEP[..., 0] >> 8
    expected = 255 - high if white_is_zero else high
    assert np.array_equal(np.asarray(open_picture(content))[..., 0], expected)


def test_adobe_writes_cmyk_upside_down() -> None:
    # 0 is full ink in Adobe's files: Pillow writes them so, and white stays white.
    white = saved(Image.new("CMYK", (16, 16), (0, 0, 0, 0)), "JPEG")
    assert b"Adobe" in white and open_picture(white).getpixel((8, 8)) == (255, 255, 255)
    cyan = saved(Image.new("CMYK", (16, 16), (255, 0, 0, 0)), "JPEG", quality=100)
    red, green, blue = open_picture(cyan).getpixel((8, 8))
    assert red < 4 and green > 251 and blue > 251


def huge(pixels: int) -> bytes:
    return raw_png((pixels, pixels), 1, 0, (b"\0" + bytes(pixels // 8)) * pixels)


def tiles(side: int) -> bytes:
    """A TIFF of 64 x 64 pixels in tiles of `side` x `side`."""
    content = zlib.compress(bytes(64 * 64))
    tags = {256: 64, 257: 64, 258: 8, 259: 8, 262: 1, 277: 1, 322: side, 323: side}
    tags |= {324: 8 + 2 + 10 * 12 + 4, 325: len(content)}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4) + content


REFUSED: dict[str, tuple[Callable[[], bytes], str]] = {
    "nothing": (lambda: b"", "is empty"),
    "words": (lambda: b"hello", "is not an image file that is read here (JPEG, PNG, "),
    "a page": (lambda: b"<!DOCTYPE html><html>404</html>", "is HTML, not one of JPEG"),
    "a pointer": (lambda: b"version https://git-lfs.github.com/spec/v1", "is a Git LFS pointer"),
    "EPS": (lambda: saved(PHOTO, "EPS"), "is EPS, not one of JPEG"),
    "AVIF": (lambda: saved(PHOTO, "AVIF"), "is AVIF, not one of JPEG"),
    "DDS": (lambda: saved(PHOTO, "DDS"), "is DDS, not one of JPEG"),
    "a head alone": (lambda: KEPT["PNG"][:20], ""),
    "cut off JPEG": (lambda: KEPT["JPEG"][:-100], "does not decode (image file is truncated"),
    "cut off PNG": (lambda: KEPT["PNG"][:-100], "does not decode ("),
    "cut off WEBP": (lambda: KEPT["WEBP"][:-20], "does not decode ("),
    "cut off GIF": (lambda: CHANGED["GIF"][0][:-100], "does not decode ("),
    "20,000 x 20,000": (lambda: huge(20_000), "has more than 67,108,864 pixels"),
    "10,000 x 10,000": (lambda: huge(10_000), "has 10000 x 10000 pixels, more than 67,108,864"),
    "tiles": (lambda: tiles(40_000), "has tiles of more than 67,108,864 pixels"),
    "floats": (lambda: saved(ALPHA.convert("F"), "TIFF"), "has floating-point numbers"),
    "integers": (lambda: saved(ALPHA.convert("I"), "TIFF"), "has 32-bit numbers"),
    "LAB": (lambda: saved(Image.new("LAB", (9, 9)), "TIFF"), "has colours in the mode LAB"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_picture_is_refused_in_words(name: str) -> None:
    content, reason = REFUSED[name][0](), REFUSED[name][1]
    for read in (open_picture, normalised):
        with pytest.raises(PictureProblem) as refusal:
            read(content)
        assert reason in str(refusal.value) and "\n" not in str(refusal.value)


def test_a_picture_of_many_pixels_takes_few_bytes() -> None:
    assert len(huge(20_000)) < 60_000 and open_picture(tiles(64)).size == (64, 64)


def test_a_file_of_too_many_bytes_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pictures, "MAX_BYTES", len(KEPT["PNG"]) - 1)
    with pytest.raises(PictureProblem, match=r"has .* bytes, more than"):
        open_picture(KEPT["PNG"])


def mutated(content: bytes, rng: random.Random) -> bytes:
    """Cut off, or with some bytes changed, most of them in the head."""
    if rng.random() < 0.2:
        return content[: rng.randrange(len(content))]
    changed = bytearray(content)
    for _ in range(rng.choice((1, 2, 8))):
        at = rng.randrange(min(len(changed), rng.choice((64, 256, 1 << 20))))
        changed[at] = rng.choice((0, 1, 127, 255, rng.randrange(256)))
    return bytes(changed)


def test_a_damaged_file_is_a_picture_or_a_reason(capfd: pytest.CaptureFixture[str]) -> None:
    rng = random.Random(0)
    whole = [*KEPT.values(), *(content for content, _ in CHANGED.values())]
    refused = 0
    for content in whole * 40:
        damaged = mutated(content, rng)
        try:
            stored = normalised(damaged)
        except PictureProblem:
            refused += 1
        else:
            assert_same(open_picture(damaged), open_picture(stored.content))
    assert 0.4 < refused / (40 * len(whole)) < 0.95
    assert "Traceback" not in capfd.readouterr().err


def test_a_profile_that_is_not_srgb_is_noted() -> None:
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    assert "colour profile ignored" in normalised(KEPT["JPEG with a profile"]).notes
    assert not normalised(saved(PHOTO, "PNG", icc_profile=srgb)).notes
