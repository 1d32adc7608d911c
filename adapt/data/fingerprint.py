"""What is kept of a picture to find others that look like it: a thousand bytes of light and colour.

A fingerprint is the SHA-256 of the stored bytes (its first 8), width and height, the picture's
luma in 32 x 32 cells, and its two chroma planes in 8 x 8 cells. Means of cells hardly move when a
picture is encoded again or resized, and turn with it when it is turned or mirrored, so that one
fingerprint serves all eight ways in which a picture can lie.
"""

import struct
from collections.abc import Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Cell = TypeVar("Cell", bound=np.generic)

# Suffixes: N fingerprints, S cells along a side, D numbers.
LIGHT, COLOUR = 32, 8  # cells along a side
RECORD = np.dtype(
    [
        ("digest", "<u8"),
        ("size", "<u4", 2),
        ("light", "u1", (LIGHT, LIGHT)),
        ("colour", "u1", (2, COLOUR, COLOUR)),
    ]
)
FINGERPRINT_BYTES = RECORD.itemsize
CELLS = 16  # where the cells begin, behind what tells one file from another
WAYS = 8
"""Turned by 0, 1, 2, 3 quarters to the left, and the mirror image turned so."""
FLAT = 2000.0
"""Squared length of slopes below which they are noise: some of a thousand are 1 by rounding."""
STEEPEST = 12  # levels between cells; edges stronger than this count no more


def fingerprint(picture: Image.Image, digest: bytes) -> bytes:
    """`FINGERPRINT_BYTES` bytes about an RGB picture, the fields of `RECORD`; takes 0.3 ms."""
    # 1. Triangles as weights (Pillow's bilinear) do not jump where cells end between two pixels.
    small = picture.resize((LIGHT, LIGHT), Image.Resampling.BILINEAR, reducing_gap=3.0)
    # 2. Light and colour apart: JPEG keeps a quarter of the colours, so that their cells are large.
    light, *colours = small.convert("YCbCr").split()
    planes = [light, *(plane.reduce(LIGHT // COLOUR) for plane in colours)]
    size = struct.pack("<2I", *picture.size)
    return digest[:8] + size + b"".join(plane.tobytes() for plane in planes)


def records(fingerprints: Sequence[bytes]) -> NDArray[np.void]:
    """The fingerprints as an array of `RECORD`."""
    return np.frombuffer(b"".join(fingerprints), dtype=RECORD)


def hashed(found: NDArray[np.void]) -> NDArray[np.int64]:
    """(N,): a hash of the cells of each; it differs from run to run."""
    rows = found.view(np.uint8).reshape(len(found), -1)[:, CELLS:]
    return np.array([hash(row.tobytes()) for row in rows], dtype=np.int64)


def lying(cells: NDArray[Cell], way: int) -> NDArray[Cell]:
    """(..., S, S) cells of pictures that lie in one of `WAYS`."""
    mirrored = cells[..., ::-1] if way >= 4 else cells
    return np.rot90(mirrored, way % 4, axes=(-2, -1))


def slopes(light_NSS: NDArray[np.uint8]) -> NDArray[np.float32]:
    """(N, D): differences of neighbouring cells, to the right and down, at most `STEEPEST`.

    Clipped, the words of a page count as much as its margins, and the drawing in a thing as much
    as its outline.
    """
    light = light_NSS.astype(np.int16)
    across, down = np.diff(light, axis=2), np.diff(light, axis=1)
    both = [part.reshape(len(light), -1) for part in (across, down)]
    return np.concatenate(both, axis=1).clip(-STEEPEST, STEEPEST).astype(np.float32)


def patches(found: NDArray[np.void]) -> NDArray[np.float32]:
    """(N, 24): means of 4 x 4 patches of light, and twice those of 2 x 2 of either colour."""
    light = found["light"].reshape(-1, 4, LIGHT // 4, 4, LIGHT // 4).mean((2, 4), dtype=np.float32)
    half = COLOUR // 2
    colour = found["colour"].reshape(-1, 2, 2, half, 2, half).mean((3, 5), dtype=np.float32)
    # Colours are fainter than light, and coding leaves them steadier.
    return np.concatenate([light.reshape(-1, 16), 2 * colour.reshape(-1, 8)], axis=1)


def places(way: int) -> NDArray[np.int64]:
    """(24,): which of the `patches` are where when the picture lies in `way`."""
    light, colour = np.arange(16).reshape(4, 4), np.arange(16, 24).reshape(2, 2, 2)
    return np.concatenate([lying(light, way).ravel(), lying(colour, way).ravel()])


def outline(patches_ND: NDArray[np.float32]) -> NDArray[np.float32]:
    """(N, 24): the patches without their places, equal for all ways of lying.

    Another way moves a patch only among those as far from the middle, and sorting these by value
    forgets which is which. Sorting two lists never moves them apart in their largest difference:
    pictures with like patches, in whatever way, have outlines at least as like.
    """
    corner, edge, middle = (0, 3, 12, 15), (1, 2, 4, 7, 8, 11, 13, 14), (5, 6, 9, 10)
    rings = [corner, edge, middle, range(16, 20), range(20, 24)]
    return np.concatenate([np.sort(patches_ND[:, list(ring)], axis=1) for ring in rings], axis=1)
