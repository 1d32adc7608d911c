"""Guided pictures: v+ for the chosen answer, v- for the rejected one. docs/method.md, section 4.

Both are made of the picture itself, before any processor, and have its size: whatever a processor
makes of a picture, tiles, crops or a grid of its own shape, it makes of these as well, and the
prompt's tokens stay where they are.

Shapes: Y x X pixels, C channels.
"""

import zlib

import numpy as np
import torch
from PIL import Image

NOISE_SIDE = 336  # pixels of noise along the longer side, at most


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
