"""A tiny model that answers with risk, in memory, in a folder and behind the HTTP door."""

import base64
import io
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from PIL import Image
from starlette.testclient import TestClient

from adapt import params
from adapt.attention.settings import SIGNALS, AnchorConfig
from adapt.generation.asked import AnsweredAs
from adapt.generation.settings import SteerConfig
from adapt.metrics import detection
from adapt.metrics.detection import Detector
from adapt.models.prompts import prompt_version
from adapt.serving import guard
from adapt.serving.answerer import Answerer
from adapt.serving.app import build
from adapt.serving.bundle import Served
from adapt.serving.door import Door
from adapt.serving.loaded import Loaded
from adapt.serving.settings import ServeConfig
from adapt.serving.source import Folder
from tests.support import tiny_world
from tests.support.closure import ROOT

K, LONGEST = 3, 40
SAID = ("car", "house", "tree", "a", ",")  # nothing but things and what stands between them
THINGS = ("car", "house", "tree")
DETECTOR = Detector(
    features=(*SIGNALS, "logprob"),
    means=(0.0,) * 6,
    scales=(1.0,) * 6,
    weights=(-3.0, 0.5, 0.1, 1.0, 2.0, -0.4),
    intercept=0.2,
    strength=1.0,
)


def version(folder: Path, seed: int = 0) -> Path:
    """A folder as a promotion registers it: weights, processor, and what answering needs."""
    model, processor = tiny_world.model(seed), tiny_world.processor()
    kept = processor.tokenizer.convert_tokens_to_ids(list(SAID))
    others = [i for i in range(len(processor.tokenizer)) if i not in kept]
    model.generation_config.suppress_tokens = others
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    answered = AnsweredAs(
        seed=7,
        max_new_tokens=LONGEST,
        anchor=AnchorConfig(anchor_tokens=K, noise_images=2),
        questions=tiny_world.QUESTIONS[:1],
    )
    served = Served(
        version=1,
        weights="",
        prompt=prompt_version(processor),
        data="",
        answered=answered,
        steer=SteerConfig(alpha=2.0, tau=2.0, trigger="mass", anchor_share=0.1, layers="all"),
        warned_by="base",
    )
    inside = folder / "serving"
    inside.mkdir()
    content = {"objects": {name: [name] for name in THINGS}, "colours": ["red"]}
    (inside / "serving.json").write_text(json.dumps(served.model_dump(mode="json")))
    (inside / "vocabulary.json").write_text(json.dumps(content))
    variants = {"attention_probability": DETECTOR}
    detection.write(inside / "detector.json", variants, {})
    return folder


def settings(**changes: Any) -> ServeConfig:
    """Section `serve` as it is shipped, with changes; those of `limits` by their own names."""
    content = params.read(ROOT / "params.yaml")
    limits = content["serve"]["limits"]
    inner = {name: changes.pop(name) for name in list(changes) if name in limits}
    section = {**content["serve"], **changes, "limits": limits | inner}
    return params.load({**content, "serve": section, "device": "cpu"}, "serve", ServeConfig)


@contextmanager
def door(folder: Path, config: ServeConfig | None = None) -> Iterator[Door]:
    """A door in front of a folder."""
    config = config or settings()
    loaded = Loaded(Folder(folder), lambda path, of: Answerer.open(path, "cpu", of), 60.0)
    made = Door(config, "adapt", loaded, lambda asked, done: None)
    try:
        yield made
    finally:
        made.close()


def guarded(made: Door, key: str = "", **changes: Any) -> guard.Guard:
    """The application as Ray's proxy sees it, without Ray."""
    rules = guard.Rules.of(made.settings.limits, key).model_dump()
    return guard.Guard(build(lambda: made), guard.Rules(**rules | changes))  # type: ignore[arg-type]


@contextmanager
def client(made: Door, **options: Any) -> Iterator[TestClient]:
    """A client of a guarded door, in one event loop."""
    app: Any = guarded(made, **options)
    with TestClient(app, base_url="http://127.0.0.1", raise_server_exceptions=False) as found:
        yield found


def encoded(picture: Image.Image, form: str = "PNG", **options: Any) -> bytes:
    """A picture's file."""
    buffer = io.BytesIO()
    picture.save(buffer, form, **options)
    return buffer.getvalue()


def url(content: bytes) -> str:
    """The data URL of a file."""
    return f"data:image/png;base64,{base64.b64encode(content).decode()}"


def part(number: int = 0) -> dict[str, Any]:
    """A picture as a part of a message."""
    content = encoded(tiny_world.picture(number))
    return {"type": "image_url", "image_url": {"url": url(content)}}


def request(number: int = 0, **changes: Any) -> dict[str, Any]:
    """A request: one of the questions about one of the pictures; None leaves a key out."""
    text = {"type": "text", "text": tiny_world.QUESTIONS[number % 2]}
    messages = [{"role": "user", "content": [part(number), text]}]
    content = {"model": "adapt", "messages": messages} | changes
    return {name: value for name, value in content.items() if value is not None}


def events(text: str) -> list[Mapping[str, Any]]:
    """The chunks of a stream, which has to end as OpenAI's do."""
    lines = [one.removeprefix("data: ") for one in text.split("\n\n") if one]
    assert lines[-1] == "[DONE]"
    return [json.loads(line) for line in lines[:-1]]
