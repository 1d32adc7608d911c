"""Pictures that come as text: base64, or a data URL. Nothing else is one: no path, no address."""

import base64
import binascii
import re

from PIL import Image

from adapt.data import pictures
from adapt.params import InputError, require

_URL = re.compile(r"data:(?:image/[\w.+-]+)?(?:;[\w=.+-]+)*;base64,", re.IGNORECASE)
_LONGEST_HEAD = 100  # characters of a data URL before its content
MIB = 1 << 20


def picture(text: str, where: str, picture_mib: float, pixels: int) -> Image.Image:
    """The picture in a text, RGB and upright, as every stage sees it.

    `picture_mib` bounds its bytes before they are decoded, `pixels` width times height before
    pixels are. `InputError` names `where`.
    """
    # 1. What the text may be: the head of a data URL is short, and says base64.
    content = text.strip()
    if content[:5].lower() == "data:":
        head = _URL.match(content[:_LONGEST_HEAD])
        problem = "expected data:image/...;base64,... of a picture"
        content = content[head.end() :] if head else ""
        require(head is not None, where, problem)
    # 2. Its size, which the number of characters tells.
    problem = f"has more than {picture_mib:g} MiB"
    require(len(content) * 3 / 4 <= picture_mib * MIB + 3, where, problem)
    try:
        raw = base64.b64decode(content, validate=True)
    except (binascii.Error, ValueError):
        raise InputError(f"{where}: expected a picture as base64 or a data URL") from None
    # 3. The head of the file says how many pixels it would take.
    try:
        width, height = pictures.shown_size(raw)
        problem = f"has {width} x {height} pixels, more than {pixels:,}"
        if width * height > pixels:
            raise pictures.PictureProblem(problem)
        return pictures.open_picture(raw)
    except pictures.PictureProblem as error:
        raise InputError(f"{where}: {error}") from None
