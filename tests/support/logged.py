"""Answers that a server might have logged, and a profile of such, without a model."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from adapt.watching import signals
from adapt.watching.profile import Profile, rounded
from adapt.watching.recorder import Recorder, Served
from adapt.watching.settings import WatchConfig
from tests.support import tiny_world

CONFIG = WatchConfig(
    log="log",
    texts=False,
    pictures=False,
    keep_days=14,
    signals_days=0,
    window=60,
    false_alarms=0.05,
)
START = 1_795_000_000.0  # seven minutes after an hour has begun


def config(**changed: Any) -> WatchConfig:
    """The settings with some of them changed."""
    return CONFIG.model_copy(update=changed)


def served(number: int, rng: np.random.Generator, shift: float = 0.0, **about: Any) -> Served:
    """One answer of random numbers; `shift` moves what the model attends to."""
    length = int(rng.integers(6, 20))
    columns: dict[str, Any] = {
        name: (rng.normal(0.5 + shift, 0.1, length)).tolist() for name in signals.TOKENS
    }
    columns |= {"steered": [0.0] * length, "risk": rng.uniform(0, 1, length).tolist()}
    columns["end"] = [4 * (place + 1) for place in range(length)]
    known: dict[str, Any] = {
        "id": f"answer-{number}",
        "time": START + number,
        "version": "1",
        "policy": "flag",
        "pictures": [(32, 32, "RGB")],
        "question": "describe the picture.",
        "answer": "a red car and a blue house",
        "length": length,
        "finish": "stop",
        "values": signals.of_answer(columns, columns["risk"][:2], 0.5),
        "tokens": columns,
        "images": [tiny_world.picture(number)],
    }
    return Served(**(known | about))


def answers(count: int, seed: int = 0, **about: Any) -> Iterator[Served]:
    """So many answers, a second apart."""
    rng = np.random.default_rng(seed)
    for number in range(count):
        yield served(number, rng, **about)


def profile(count: int = 200, seed: int = 99, **changed: Any) -> Profile:
    """A profile of such answers."""
    rows = []
    for one in answers(count, seed):
        rows.append(
            one.values
            | {"question": float(len(one.question)), "length": float(one.length)}
            | signals.of_pictures(one.images)
        )
    values = {name: tuple(rounded(row[name] for row in rows)) for name in signals.NAMES}
    known: dict[str, Any] = {"pictures": count, "values": values, "modes": {"RGB": 1.0}}
    return Profile(**(known | changed))


def write(place: WatchConfig, root: Any, *parts: Iterator[Served]) -> None:
    """Log answers, and wait until they are on the disk."""
    recorder = Recorder(place, root, clock=lambda: START)
    for part in parts:
        for one in part:
            recorder.record(one)
    recorder.close(60)
