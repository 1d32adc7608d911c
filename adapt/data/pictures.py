"""Pictures: the one place that turns the bytes of an image file into pixels.

`open_picture` gives the picture that every stage, check and inspection sees: upright, RGB, 8 bits,
transparent parts on white, the first of several frames, colour profiles ignored (a note says so
where one is not sRGB). What the import stores has gone through `normalised`, so that any other
decoder sees the same pixels: bytes that a plain `Image.open(...).convert("RGB")` reads alike are
kept to the last one, all others become PNG.

What is read, and what not:

* Only the decoders of `FORMATS` run. Pillow has some forty more: EPS starts Ghostscript on the
  bytes; AVIF, DDS, BLP, PSD and others are rare in data sets, and what they raise for damaged files
  nobody has listed; HEIC and SVG it cannot read at all.
* `MAX_BYTES` of a file, before anything is read, and `MAX_PIXELS`, from the head of the file,
  before pixels are decoded: 20 kB of PNG can hold 20,000 x 20,000 of them, 1.6 GB in memory.
* 16 bits become 8 by their high byte, as libpng's `png_set_strip_16` and Pillow's 16-bit RGB have
  it (`value >> 8`), 12 bits likewise (`value >> 4`). Numbers of 32 bits and floats are refused:
  nothing says which of them is white.
* CMYK and YCCK become RGB by Pillow's formula, with Adobe's inverted ones set right.
* A damaged file is refused, also one that only lacks its end.
"""

import hashlib
import io
import struct
import warnings
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from PIL import Image, ImageFile, UnidentifiedImageError

from adapt.data.fingerprint import fingerprint
from adapt.data.pixels import MODES, UPRIGHT, WIDE, in_8_bits, in_colour, orientation_of
from adapt.data.readers.record import MAX_PICTURE
from adapt.params import InputError

Result = TypeVar("Result")

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
MAX_BYTES = MAX_PICTURE
MAX_PIXELS = 1 << 26
"""Of one picture: 8192 x 8192, 268 MB decoded, above the 61 million of full-frame cameras."""

# Of PNG, by what came. Of photographs the level 6 makes 90 % of level 1 in four times its time, of
# drawings and texts a third in one and a half times.
COMPRESSION = {"PNG": 6, "GIF": 6, "BMP": 6, "JPEG": 1, "WEBP": 1, "TIFF": 1}
PLAIN = ("JPEG", "MPO", "PNG", "WEBP")  # MPO: what Pillow calls a JPEG with more JPEGs behind it
# What Pillow and its libraries raise for files that are damaged, cut off or made to harm.
DAMAGED = (
    *(OSError, SyntaxError, ValueError, TypeError, LookupError, AttributeError, AssertionError),
    *(ArithmeticError, RuntimeError, EOFError, MemoryError, struct.error, zlib.error),
)
TOO_LARGE = (Image.DecompressionBombError, Image.DecompressionBombWarning)

# Pillow's words about odd tags: what matters of them becomes a problem or a note here.
warnings.filterwarnings("ignore", module=r"PIL\.")

TILEWIDTH, TILELENGTH = 322, 323  # tags of TIFF

# What people take for pictures: the bytes at an offset, and its name.
OTHERS = (
    (4, b"ftypavif", "AVIF"),
    (4, b"ftyphei", "HEIC"),
    (4, b"ftypmif1", "HEIF"),
    (0, b"%!PS", "EPS"),
    (0, b"%PDF", "PDF"),
    (0, b"8BPS", "Photoshop"),
    (0, b"DDS ", "DDS"),
    (0, b"\x00\x00\x00\x0cjP", "JPEG 2000"),
    (0, b"\xff\x4f\xff\x51", "JPEG 2000"),
    (0, b"<svg", "SVG"),
    (0, b"<?xml", "XML"),
    (0, b"<!doctype html", "HTML"),
    (0, b"<html", "HTML"),
    (0, b"version https://git-lfs", "a Git LFS pointer, not the file itself"),
)


class PictureProblem(InputError):
    """Why bytes are not a picture that is read here: words that follow its name or its place."""


@dataclass(frozen=True, kw_only=True)
class Stored:
    """A picture as the import keeps it.

    `content` is a JPEG, PNG or WEBP that every decoder sees alike, `digest` its SHA-256 in hex.
    `size` is (width, height) of the picture as it is seen. `mode` and `format` are what came, in
    Pillow's words, and `notes` what was changed or ignored. `fingerprint` is what
    `adapt/data/likeness.py` compares.
    """

    content: bytes
    digest: str
    size: tuple[int, int]
    mode: str
    format: str
    notes: tuple[str, ...]
    fingerprint: bytes


@dataclass(frozen=True, kw_only=True)
class Head:
    """What the head of an image file says: (width, height) as stored, and whether it moves.

    A JPEG with more JPEGs behind it, as some cameras write, does not move.
    """

    size: tuple[int, int]
    is_animated: bool


@dataclass(frozen=True, kw_only=True)
class _Decoded:
    picture: Image.Image
    mode: str
    format: str
    notes: tuple[str, ...]
    is_plain: bool


def open_picture(content: bytes) -> Image.Image:
    """The picture in the bytes of an image file, RGB; `PictureProblem` says why there is none."""
    return _decoded(content).picture


def normalised(content: bytes) -> Stored:
    """The picture as it is stored, checked and measured with one decode.

    `open_picture` gives the same pixels for `content` and for what is stored. A JPEG of 640 x 480
    takes 1.5 ms. `PictureProblem` says why there is no picture.
    """
    seen = _decoded(content)
    kept = content if seen.is_plain else _png(seen.picture, seen.format)
    digest = hashlib.sha256(kept)
    return Stored(
        content=kept,
        digest=digest.hexdigest(),
        size=seen.picture.size,
        mode=seen.mode,
        format=seen.format,
        notes=seen.notes,
        fingerprint=fingerprint(seen.picture, digest.digest()),
    )


def shown_size(content: bytes) -> tuple[int, int]:
    """(width, height) of the upright picture, from the head of the file.

    Pixels are decoded only of a PNG with EXIF or XMP, which may stand behind them.
    """
    return _guarded(_shown_size, content)


def head_of(content: bytes) -> Head:
    """Size and frames, from the head of the file; no pixel is decoded."""
    return _guarded(_head, content)


def _head(content: bytes) -> Head:
    picture = _opened(content)
    moves = picture.format != "MPO" and bool(getattr(picture, "is_animated", False))
    return Head(size=picture.size, is_animated=moves)


def _decoded(content: bytes) -> _Decoded:
    return _guarded(_decode, content)


def _guarded(step: Callable[[bytes], Result], content: bytes) -> Result:
    """What `step` makes of the bytes; everything that it may raise becomes a `PictureProblem`."""
    if len(content) > MAX_BYTES:
        raise PictureProblem(f"has {len(content):,} bytes, more than {MAX_BYTES:,}")
    try:
        return step(content)
    except PictureProblem:
        raise
    except TOO_LARGE:
        raise PictureProblem(f"has more than {MAX_PIXELS:,} pixels") from None
    except UnidentifiedImageError:
        raise PictureProblem(_what_else(content)) from None
    except DAMAGED as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise PictureProblem(f"does not decode ({reason})") from None


def _what_else(content: bytes) -> str:
    """What no decoder takes: empty, something that is known, or anything."""
    head = content[:64]
    if not head:
        return "is empty"
    for at, mark, name in OTHERS:
        if head.lstrip().lower()[at:].startswith(mark.lower()):
            return f"is {name}, not one of {', '.join(FORMATS)}"
    return f"is not an image file that is read here ({', '.join(FORMATS)}), or its head is damaged"


def _opened(content: bytes) -> ImageFile.ImageFile:
    """The picture with its head read; its size is allowed and its mode known."""
    picture = Image.open(io.BytesIO(content), formats=FORMATS)
    width, height = picture.size
    if width * height > MAX_PIXELS:
        raise PictureProblem(f"has {width} x {height} pixels, more than {MAX_PIXELS:,}")
    tags = getattr(picture, "tag_v2", {})
    tile = tags.get(TILEWIDTH, 1) * tags.get(TILELENGTH, 1)
    if tile > MAX_PIXELS:  # a TIFF's tile takes memory whatever the picture's own size is
        raise PictureProblem(f"has tiles of more than {MAX_PIXELS:,} pixels")
    if picture.mode not in MODES + WIDE:
        numbers = {"I": "32-bit numbers", "F": "floating-point numbers"}
        kind = numbers.get(picture.mode, f"colours in the mode {picture.mode}")
        raise PictureProblem(f"has {kind}, of which nothing says how they look; store 8 or 16 bits")
    return picture


def _shown_size(content: bytes) -> tuple[int, int]:
    picture = _opened(content)
    width, height = picture.size
    # A TIFF's size is the upright one already.
    may_turn = picture.format != "TIFF"
    if picture.format == "PNG":
        may_turn = any(mark in content for mark in (b"eXIf", b"Raw profile type", b"XML:com."))
    return (height, width) if may_turn and orientation_of(picture) >= 5 else (width, height)


def _decode(content: bytes) -> _Decoded:
    # 1. The head: which decoder, how large, what is beside the pixels.
    picture = _opened(content)
    mode, file_format = picture.mode, picture.format or ""
    is_wide = any(";16" in str(tile.args) for tile in picture.tile) or mode in WIDE
    has_frames = bool(getattr(picture, "is_animated", False))
    profile = picture.info.get("icc_profile") or b"sRGB"  # without one colours are sRGB
    has_profile = b"sRGB" not in profile.replace(b"\0", b"")
    orientation = orientation_of(picture) if file_format == "TIFF" else 1  # loading turns a TIFF
    # 2. The pixels: 8 bits, RGB on white, upright.
    picture.load()
    orientation = max(orientation, orientation_of(picture))  # a PNG may have it behind the pixels
    colour, is_clear = in_colour(in_8_bits(picture) if is_wide else picture)
    if file_format != "TIFF" and orientation != 1:
        colour = colour.transpose(UPRIGHT[orientation])
    has_opacity = picture.has_transparency_data
    colour.info = {}  # nothing is left that the next reader could apply once more
    # 3. What was done, in words.
    said = {
        f"turned upright (EXIF orientation {orientation})": orientation != 1,
        "white behind transparency": is_clear,
        "16 bits to 8": is_wide,
        f"{mode} to RGB": not is_wide and mode not in ("L", "RGB"),
        "the first of several frames": has_frames,
        f"{file_format} to PNG": file_format not in PLAIN,
        "colour profile ignored": has_profile,
    }
    is_changed = is_wide or has_opacity or orientation != 1 or mode not in ("L", "RGB")
    is_plain = not is_changed and file_format in PLAIN
    is_plain = is_plain and (not has_frames or file_format == "MPO")
    return _Decoded(
        picture=colour,
        mode=mode,
        format="JPEG" if file_format == "MPO" else file_format,
        notes=tuple(note for note, holds in said.items() if holds),
        is_plain=is_plain,
    )


def _png(picture: Image.Image, came_as: str) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", compress_level=COMPRESSION[came_as])
    return buffer.getvalue()
