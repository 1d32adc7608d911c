"""The record: its vocabulary, and the pictures of it as everybody sees them."""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from adapt.data.pictures import open_picture
from adapt.data.schema import (
    Vocabulary,
    read_vocabulary,
    write_vocabulary,
)
from adapt.params import InputError

WORDS = Vocabulary(
    objects={"house": ("house", "houses"), "tree": ("tree",), "car": ("car",)},
    colours=("red", "green"),
)


def png() -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)).save(
        buffer, "PNG"
    )
    return buffer.getvalue()


def test_vocabulary_round_trip(tmp_path: Path) -> None:
    write_vocabulary(tmp_path / "vocabulary.json", WORDS)
    assert read_vocabulary(tmp_path / "vocabulary.json") == WORDS


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("{", "is no JSON"),
        ("[" * 100_000, "is nested more than 32 levels deep"),
        (" " * ((1 << 24) + 1), "has more than 16 MiB, too large for a vocabulary"),
        ({"objects": {"house": ["house"] * 100_001}, "colours": []}, "has 100001 words, more"),
        ({"objects": {"house": "house"}, "colours": []}, "expected {"),
        ({"objects": {"house": ["house"]}, "colours": "red"}, "expected {"),
        ({"objects": {}, "colours": [["red"]]}, "colour ['red'] is not a lower-case word"),
        ({"objects": {"a\x1b": ["B" * 999]}, "colours": []}, r"object 'a\x1b': 'BBB"),
        ("[]", "expected {"),
        ({"objects": {"house": ["house"]}}, "expected {"),
        ({"objects": {"house": []}, "colours": []}, "object 'house' has no words"),
        ({"objects": {"house": ["House"]}, "colours": []}, "'House' is not a lower-case word"),
        (
            {"objects": {"bat": ["bat"], "club": ["bat"]}, "colours": []},
            "'bat' means both 'bat' and 'club'",
        ),
    ],
)
def test_a_bad_vocabulary_is_one_clear_line(tmp_path: Path, content: Any, reason: str) -> None:
    path = tmp_path / "vocabulary.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    with pytest.raises(InputError) as caught:
        read_vocabulary(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ") and reason in message
    assert message.isprintable() and len(message) < 400


def test_a_picture_is_upright_and_opaque_wherever_it_is_opened() -> None:
    turned, buffer = Image.new("RGB", (4, 2), "red"), io.BytesIO()
    turned.putpixel((0, 0), (0, 0, 255))
    exif = turned.getexif()
    exif[0x0112] = 6
    turned.save(buffer, "PNG", exif=exif)
    upright = open_picture(buffer.getvalue())
    assert upright.size == (2, 4) and upright.getpixel((1, 0)) == (0, 0, 255)
    buffer = io.BytesIO()
    Image.new("RGBA", (2, 2), (255, 0, 0, 0)).save(buffer, "PNG")
    clear = open_picture(buffer.getvalue())
    assert clear.mode == "RGB" and clear.getpixel((0, 0)) == (255, 255, 255)
