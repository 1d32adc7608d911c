"""Guided pictures: v+ shows what the anchor supports, v- is noisy. docs/method.md, section 4.

Both are made of the picture itself, before any processor, and have its size: whatever a processor
makes of a picture, tiles, crops or a grid of its own shape, it makes of these as well, and the
prompt's tokens stay where they are.

Which picture stands with which answer is the form of guidance (`train.vag_form`): `halves`.

Shapes: Y x X pixels, C channels.
"""

import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image

from adapt.attention.support import SIDE
from adapt.preference.settings import VagForm

NOISE_SIDE = 336  # pixels of noise along the longer side, at most
Opened = list[Image.Image]
Row = Mapping[str, Any]  # the fields of a `Pair`, and what training adds to them


def halves(
    form: VagForm,
    share: float,
    rows: Sequence[Row],
    own: Sequence[Opened],
    others: Sequence[Opened],
) -> list[Opened]:
    """The pictures of the first half of guided rows, then of the second, 2B in all.

        form          first half: answer, picture    second half: answer, picture
        paper         chosen, v+                     rejected, v-
        same_text     chosen, v                      chosen, v-
        same_image    chosen, v-                     rejected, v-

    `own`, `others`: the rows' pictures, and those that rejected answers have of their own, () for
    the same. `share`: of the noise's power.
    """
    bad = [other or same for other, same in zip(others, own, strict=True)]
    if form == "paper":
        return [*_supported(rows, own), *_noisy(rows, bad, share)]
    if form == "same_text":
        return [*own, *_noisy(rows, own, share)]
    return [*_noisy(rows, own, share), *_noisy(rows, bad, share)]


def _supported(rows: Sequence[Row], pictures: Sequence[Opened]) -> list[Opened]:
    """v+ of the rows' pictures."""
    made: list[Opened] = []
    for row, opened in zip(rows, pictures, strict=True):
        maps = [np.frombuffer(one, np.uint8).reshape(SIDE, SIDE) for one in row["support"]]
        made.append([enhanced(v, m) for v, m in zip(opened, maps, strict=True)])
    return made


def _noisy(rows: Sequence[Row], pictures: Sequence[Opened], share: float) -> list[Opened]:
    """v- of the rows' pictures: the noise depends on a row's id and the picture's number."""
    made: list[Opened] = []
    for row, opened in zip(rows, pictures, strict=True):
        names = [f"{row['id']} {n}" if n else row["id"] for n in range(len(opened))]
        made.append([noise_injected(v, share, name) for v, name in zip(opened, names, strict=True)])
    return made


def enhanced(picture: Image.Image, support: np.ndarray) -> Image.Image:
    """v+ = v m + white (1 - m) [paper]: what the anchor does not support fades to white.

    `support`: bytes [S, S] over the picture (`adapt/attention/support.py`); m is it, resized
    bilinearly to the picture, in 0..1.
    """
    resized = Image.fromarray(support.astype(np.float32)).resize(
        picture.size, Image.Resampling.BILINEAR
    )
    mask_YX1 = np.asarray(resized)[..., None] / 255
    return _picture(255 + (_pixels(picture) - 255) * mask_YX1)


def noise_injected(picture: Image.Image, share: float, identity: str) -> Image.Image:
    """v- = sqrt(1 - s) v + sqrt(s) noise [ours], for pixels of -1..1, clipped.

    `share` s of the power is unit Gaussian noise, which depends on `identity` and the size alone: a
    resumed run sees what an uninterrupted one would have seen. A processor that shrinks a picture
    averages fine noise away, so a picture of more than NOISE_SIDE pixels has coarser noise.
    """
    width, height = picture.size
    shrink = min(1.0, NOISE_SIDE / max(width, height))
    rows, columns = (max(1, round(side * shrink)) for side in (height, width))
    generator = torch.Generator().manual_seed(zlib.crc32(identity.encode()))
    noise_CYX = torch.randn(3, rows, columns, generator=generator).numpy()
    # Every pixel takes the noise under it: a mean of neighbours would have less power.
    ys, xs = np.arange(height) * rows // height, np.arange(width) * columns // width
    noise_YXC = noise_CYX[:, ys[:, None], xs].transpose(1, 2, 0)
    signal_YXC = _pixels(picture) / 127.5 - 1
    noisy_YXC = (1 - share) ** 0.5 * signal_YXC + share**0.5 * noise_YXC
    return _picture((noisy_YXC + 1) * 127.5)


def _pixels(picture: Image.Image) -> np.ndarray:
    return np.asarray(picture.convert("RGB"), dtype=np.float32)


def _picture(pixels_YXC: np.ndarray) -> Image.Image:
    return Image.fromarray(np.rint(pixels_YXC.clip(0, 255)).astype(np.uint8))
