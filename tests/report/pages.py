"""Records made by hand, and a page taken apart as a browser would."""

import io
from dataclasses import replace
from datetime import UTC, datetime
from html.parser import HTMLParser
from typing import Any

import numpy as np
from PIL import Image

from adapt.report.reading import Record, Split, Stage, Version

LOADED = ("src", "srcset", "data", "poster", "background", "xlink:href", "action")
VOID = {"meta", "img", "br", "link", "input", "hr", "line", "path", "circle"}


def record(**changes: Any) -> Record:
    """A retraining with two arms, one curve of each kind, one panel and one version."""
    start = datetime(2026, 11, 26, 3, 0, tzinfo=UTC)
    made = Record(
        id="0123456789abcdef0123456789abcdef",
        name="2026-11-26 nightly, data 3f2a1c",
        status="FINISHED",
        experiment="1",
        started=start,
        ended=start.replace(minute=7),
        tags={
            "adapt.kind": "retraining",
            "adapt.ending": "promoted",
            "adapt.against": "base model",
            "adapt.reasons": "passed: Hal 34.2 % -> 14.4 %\nfailed: Cover 94.6 % -> 90.1 %",
            "mlflow.source.git.commit": "d38aa354c72037543cba2cfba24f54bd6acdd893",
            "adapt.flow_run": "dae76496",
        },
        params={"train.steps": "200", "seed": "7"},
        metrics={
            "test/base/hal": 34.2,
            "test/tuned/hal": 14.4,
            "test/difference/hal": -19.8,
            "test/difference/hal_low": -23.6,
            "test/difference/hal_high": -16.2,
            "test/base/pope_f1": 80.0,
            "test/tuned/pope_f1": 81.5,
        },
        curves={
            "curves/mass/base": ((0, 0.8), (1, 0.5)),
            "curves/mass/tuned": ((0, 0.8), (1, 0.7)),
            "train/loss": ((1, 1.5), (2, 0.5)),
        },
        answers=[
            {
                "id": "test-1",
                "question": "what is there?",
                "base": "a **cat** on a bed",
                "tuned": "a bed",
            }
        ],
        pictures={"panel_test-1.png": png(40, 30)},
        splits=[Split(name="train", digest="bb90428aa940.dir", rows=16000)],
        stages=[
            Stage(name="train", id="b" * 32, status="FINISHED", seconds=65, how="ran", hash="05b4"),
            Stage(name="data", id="a" * 32, status="FINISHED", seconds=None, how="cached", hash=""),
        ],
        parent="",
        version=Version(model="adapt", number="7", aliases=("champion",), tags={}),
        address="http://127.0.0.1:5000",
    )
    return replace(made, **changes)


def png(width: int, height: int, noise: bool = False) -> bytes:
    """A picture, of one colour or of pixels that no format can shorten."""
    pixels = np.zeros((height, width, 3), np.uint8)
    if noise:
        pixels = np.random.default_rng(width).integers(0, 256, (height, width, 3), np.uint8)
    text = io.BytesIO()
    Image.fromarray(pixels).save(text, "PNG")
    return text.getvalue()


class Page(HTMLParser):
    """The elements of a page with their attributes, the text that is shown, and the style."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.text, self.style = "", ""
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert not self._open, f"never closed: {self._open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {key: value or "" for key, value in attrs}))
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {key: value or "" for key, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self._open and self._open[-1] == tag, f"</{tag}> closes {self._open[-3:]}"
        self._open.pop()

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1] == "style":
            self.style += data
        else:
            self.text += data

    def all(self, tag: str) -> list[dict[str, str]]:
        """The attributes of each element of a kind."""
        return [attributes for name, attributes in self.elements if name == tag]


def offline(page: Page) -> None:
    """Fails unless the page asks nobody for anything and runs nothing."""
    tags = {tag for tag, _ in page.elements}
    assert not tags & {"script", "link", "iframe", "object", "embed", "base", "form", "audio"}
    for tag, attributes in page.elements:
        assert not any(name.startswith("on") for name in attributes), (tag, attributes)
        for name in LOADED:
            assert attributes.get(name, "data:image/").startswith("data:image/"), attributes
        if "href" in attributes:
            assert tag == "a" and attributes["href"].startswith(("http://", "https://"))
            assert attributes["rel"] == "noreferrer"
    assert not any(word in page.style for word in ("url(", "@import", "http"))
    policy = [one["content"] for one in page.all("meta") if "http-equiv" in one]
    assert policy == ["default-src 'none'; img-src data:; style-src 'unsafe-inline'"]
