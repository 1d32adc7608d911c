"""Requests that mean harm, of every kind that was thought of, the same ones for every seed."""

import json
import random
from collections.abc import Iterator
from typing import Any

from PIL import Image

from tests.support import doors, tiny_world
from tests.support.pngs import bomb

KINDS = ("fuzzed", "types", "bombs", "damaged", "animated", "urls", "options", "texts", "large")
PLACES = (
    *("/etc/passwd", "file:///etc/passwd", "../../../etc/passwd", "C:\\Windows\\win.ini"),
    *("http://127.0.0.1:22/", "http://169.254.169.254/latest/meta-data/", "http://[::1]/"),
    *("https://evil.example/a.png", "ftp://127.0.0.1/x", "gopher://x", "//evil.example/x"),
    *("data:image/svg+xml;base64,PHN2Zy8+", "data:text/html,<script>", "javascript:alert(1)"),
    *("models:/adapt@champion", "s3://bucket/key", "hf://datasets/x", "http://0x7f000001/"),
    *("http://localhost:1/\r\nHost: x", "DATA:;base64,", "data:image/png;base64,/etc/passwd"),
)
STRANGE: tuple[Any, ...] = (
    *(None, True, -1, 0, 1e308, 2**70, "", "x" * 5000, [], {}, [[]], {"a": {"b": []}}),
    *("\u202e\x00\x1b[2J", "\ud800", ["\x00"], {"$ref": "#"}, "../../x", "{{7*7}}", "%s%n"),
)


def attack(number: int) -> tuple[str, bytes]:
    """An attack's kind and its body; the same for the same number."""
    drawn = random.Random(number)
    kind = KINDS[number % len(KINDS)]
    content = globals()[f"_{kind}"](drawn)
    return kind, content if isinstance(content, bytes) else json.dumps(content).encode()


def attacks(count: int) -> Iterator[tuple[str, bytes]]:
    """So many."""
    return map(attack, range(count))


def _pictured(content: bytes | str) -> dict[str, Any]:
    """A request about a picture: a file, or what stands where its URL would."""
    named = doors.url(content) if isinstance(content, bytes) else content
    parts = [
        {"type": "image_url", "image_url": {"url": named}},
        {"type": "text", "text": tiny_world.QUESTIONS[0]},
    ]
    return doors.request(messages=[{"role": "user", "content": parts}])


def _fuzzed(drawn: random.Random) -> bytes:
    """Bytes of a good request's structure changed, cut or repeated; never its picture alone."""
    body = bytearray(json.dumps(doors.request(drawn.randrange(3))).encode())
    start = body.index(b"base64,")
    for _ in range(drawn.randrange(1, 12)):
        at = drawn.choice([drawn.randrange(start), drawn.randrange(len(body) - 90, len(body))])
        change = drawn.randrange(3)
        if change == 0:
            body[at] = drawn.randrange(256)
        elif change == 1:
            del body[at : at + drawn.randrange(1, 9)]
        else:
            body[at:at] = bytes(drawn.choices(b'{}[]",:\\\x00e1', k=drawn.randrange(1, 9)))
    return bytes(body)


def _types(drawn: random.Random) -> dict[str, Any]:
    """A value of another type anywhere in a good request."""
    content = json.loads(json.dumps(doors.request()))
    places = [*_inside(content)]
    above, key = drawn.choice(places)
    above[key] = drawn.choice(STRANGE)
    return content


def _inside(content: Any) -> Iterator[tuple[Any, Any]]:
    keys = content if isinstance(content, dict) else range(len(content))
    for key in list(keys):
        yield content, key
        if isinstance(content[key], dict | list):
            yield from _inside(content[key])


def _bombs(drawn: random.Random) -> dict[str, Any]:
    sides = drawn.choice([(40_000, 40_000), (2**31 - 1, 1), (1, 10**9), (50_000, 20_000)])
    return _pictured(bomb(*sides))


def _damaged(drawn: random.Random) -> dict[str, Any]:
    form = drawn.choice(["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF"])
    content = doors.encoded(tiny_world.picture(drawn.randrange(9)), form)
    return _pictured(content[: drawn.randrange(0, len(content) // 2)])


def _animated(drawn: random.Random) -> dict[str, Any]:
    frames = [Image.new("RGB", (8, 8), (shade, 0, 0)) for shade in range(0, 250, 10)]
    form = drawn.choice(["GIF", "WEBP", "PNG", "TIFF"])
    return _pictured(doors.encoded(frames[0], form, save_all=True, append_images=frames[1:]))


def _urls(drawn: random.Random) -> dict[str, Any]:
    return _pictured(drawn.choice(PLACES))


def _options(drawn: random.Random) -> dict[str, Any]:
    names = ("n", "tools", "logit_bias", "stop", "top_p", "response_format", "audio", "best_of")
    name = drawn.choice([*names, "use_beam_search", "model", "__proto__", "risk", "messages"])
    value = drawn.choice([7, "x", ["a"], {"a": 1}, 10**40, -1.5])
    return doors.request(**{name: value})


def _texts(drawn: random.Random) -> dict[str, Any]:
    text = drawn.choice(["<image>", "</s>", "<assistant>", "x " * 9000, "", " \n", "\ud800"])
    messages = [{"role": "user", "content": [doors.part(), {"type": "text", "text": text}]}]
    if drawn.random() < 0.3:
        messages *= drawn.choice([2, 3, 999])
    return doors.request(messages=messages)


def _large(drawn: random.Random) -> bytes:
    if drawn.random() < 0.1:
        return b'{"model": "' + b"x" * (50 << 20) + b'"}'
    return drawn.choice([b"[" * 90_000, b'{"a":' * 30_000, b'{"a": [' + b"[]," * 150_000])
