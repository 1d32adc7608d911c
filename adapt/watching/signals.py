"""The numbers that are kept of an answer: of the question, of the picture, of how it was made.

They are worked out here for the server and for the reference profile alike, so that a difference
between the two is one of the answers. None of them tells what was asked, shown or said.

    <signal>_early, _late, _late_early   a degradation signal (docs/method.md, section 1): its mean
                                         over the first and over the last third of the tokens, and
                                         the second over the first; missing below three tokens
    risk       highest risk of a named object; 0 where none is named, missing without a detector
    warned     share of the named objects whose risk reaches the threshold
    logprob    mean log-probability of the tokens, nats
    firing     share of layers and tokens at which steering stepped in
    length     tokens
    question   characters
    width, height, brightness, contrast, upright, noise
               of the pictures, the mean of several; `upright` is the share of upright edges in the
               strength of all, by which scenes of one kind are known (Oliva & Torralba 2001)

A value that is missing is NaN.
"""

import hashlib
import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike
from PIL import Image

SIGNALS = ("mass", "focus", "amc", "responsiveness", "drift")
"""Those of `adapt/attention/settings.py`, a room above this one; a test compares the two."""
PARTS = ("early", "late", "late_early")
OF_ANSWER = (
    *(f"{signal}_{part}" for signal in SIGNALS for part in PARTS),
    *("risk", "warned", "logprob", "firing", "length"),
)
OF_PICTURE = ("width", "height", "brightness", "contrast", "upright", "noise")
NAMES = (*OF_ANSWER, "question", *OF_PICTURE)
TOKENS = (*SIGNALS, "logprob", "steered")
"""Columns of an answer's tokens that the numbers are made of."""

SIDE = 64  # pixels of a picture that are looked at, along a side
SMALLEST = 3  # pixels along a side, for an estimate of noise
MISSING = math.nan


def of_answer(
    tokens: Mapping[str, ArrayLike], named: Sequence[float] | None, threshold: float
) -> dict[str, float]:
    """The numbers of one answer, `OF_ANSWER`.

    `tokens` has the columns `TOKENS`, a value per token each; `named` the risk of each object that
    the answer names, None where there is no detector.

    >>> columns = dict.fromkeys(TOKENS, [4.0, 9.0, 2.0])
    >>> found = of_answer(columns, [0.2, 0.8], threshold=0.5)
    >>> [found[name] for name in ("mass_early", "mass_late_early", "risk", "warned", "length")]
    [4.0, 0.5, 0.8, 0.5, 3.0]
    """
    columns = {name: np.asarray(tokens[name], dtype=np.float64) for name in TOKENS}
    length = len(columns["mass"])
    third = length // 3
    values: dict[str, float] = {}
    for name in SIGNALS:
        early, late = _mean(columns[name][:third]), _mean(columns[name][length - third :][:third])
        ratio = late / early if early else MISSING
        values |= dict(zip((f"{name}_{part}" for part in PARTS), (early, late, ratio), strict=True))
    warned = None if named is None else [risk >= threshold for risk in named]
    values["risk"] = MISSING if named is None else max(named, default=0.0)
    values["warned"] = MISSING if warned is None else sum(warned) / max(len(warned), 1)
    values["logprob"], values["firing"] = _mean(columns["logprob"]), _mean(columns["steered"])
    return values | {"length": float(length)}


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if len(values) else MISSING


def of_pictures(pictures: Sequence[Image.Image]) -> dict[str, float]:
    """The numbers of the pictures of one question, `OF_PICTURE`; takes well below a millisecond."""
    each = [_of_picture(picture) for picture in pictures]
    return {name: _mean(np.array([one[name] for one in each])) for name in OF_PICTURE}


def _of_picture(picture: Image.Image) -> dict[str, float]:
    """Size in pixels; mean and deviation of luma, edges, and the deviation of its noise, 0 to 1."""
    width, height = picture.size
    # Single pixels of a raster: of a large picture no more is read than of a small one.
    small = picture.resize((SIDE, SIDE), Image.Resampling.NEAREST).convert("L")
    light = np.asarray(small, dtype=np.float64) / 255
    return {
        "width": float(width),
        "height": float(height),
        "brightness": float(light.mean()),
        "contrast": float(light.std()),
        "upright": _upright(light),
        "noise": _noise(picture),
    }


def _upright(light: np.ndarray) -> float:
    """Share of upright edges in the strength of upright and level ones; missing without any."""
    upright, level = (float(np.abs(np.diff(light, axis=axis)).mean()) for axis in (1, 0))
    return upright / (upright + level) if upright + level else MISSING


def _noise(picture: Image.Image) -> float:
    """Deviation of Gaussian noise in the middle of a picture (Immerkaer 1996), 0 to 1.

    The mean absolute value of a mask that neither flat areas nor straight slopes answer to.
    """
    width, height = picture.size
    if min(width, height) < SMALLEST:
        return MISSING
    left, top = max(0, (width - SIDE) // 2), max(0, (height - SIDE) // 2)
    middle = picture.crop((left, top, left + min(width, SIDE), top + min(height, SIDE)))
    light = np.asarray(middle.convert("L"), dtype=np.float64) / 255
    # [1 -2 1] along both sides.
    across = light[:, :-2] - 2 * light[:, 1:-1] + light[:, 2:]
    mask = across[:-2] - 2 * across[1:-1] + across[2:]
    return float(math.sqrt(math.pi / 2) / 6 * np.abs(mask).mean())


def name_of(pictures: Sequence[Image.Image], key: bytes) -> str:
    """A name for the pictures, by which answers about the same ones are known, and nothing else.

    Of a raster of their pixels under a `key` that is kept nowhere: from a log nobody can tell
    whether a certain picture was shown.
    """
    total = hashlib.blake2b(key=key, digest_size=8)
    for picture in pictures:
        small = picture.resize((SIDE, SIDE), Image.Resampling.NEAREST).convert("RGB")
        total.update(repr(picture.size).encode() + small.tobytes())
    return total.hexdigest() if pictures else ""
