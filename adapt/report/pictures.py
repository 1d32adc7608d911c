"""Pictures as text within a page: drawn anew, so that no foreign byte gets in, and bounded.

A picture that fits is embedded as PNG, a larger one as JPEG at the width that a page shows.
"""

import base64
import io
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from PIL import Image

FILE_LIMIT = 32 << 20  # bytes of a file that is looked at
PIXELS = 60_000_000  # of a picture that is opened
WIDTH = 1600  # pixels; a page is not wider on any screen that matters
AS_PNG = 256 << 10  # bytes up to which a picture stays as sharp as it is
TOTAL = 12 << 20  # bytes of all pictures of a page, so that it can be mailed


@dataclass(frozen=True)
class Picture:
    """What an `img` element needs: `source` is a data address."""

    name: str
    source: str
    width: int
    height: int


def embedded(files: Mapping[str, bytes], names: Iterable[str]) -> tuple[list[Picture], int]:
    """The pictures `names` as far as they fit, and how many do not fit or are none."""
    kept: list[Picture] = []
    room, dropped = TOTAL, 0
    for name in names:
        picture = _picture(name, files[name])
        if picture is None or len(picture.source) > room:
            dropped += 1
            continue
        room -= len(picture.source)
        kept.append(picture)
    return kept, dropped


def _picture(name: str, data: bytes) -> Picture | None:
    """A picture drawn anew; None for what is none, or too large to be opened."""
    if len(data) > FILE_LIMIT:
        return None
    try:
        with Image.open(io.BytesIO(data), formats=("PNG",)) as opened:
            if opened.width * opened.height > PIXELS:
                return None
            image = opened.convert("RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None
    small = len(data) <= AS_PNG
    if image.width > WIDTH and not small:
        image = image.resize((WIDTH, max(1, round(image.height * WIDTH / image.width))))
    text = io.BytesIO()
    options = {"optimize": True} if small else {"quality": 85}
    image.save(text, "PNG" if small else "JPEG", **options)
    kind = "png" if small else "jpeg"
    source = f"data:image/{kind};base64,{base64.b64encode(text.getvalue()).decode()}"
    return Picture(name, source, image.width, image.height)
