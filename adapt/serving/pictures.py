"""Pictures of a request: their bytes bounded first, then their heads, and only then their pixels.

`content_of` takes a data URL apart; what lies on another machine is `adapt/serving/urls.py`'s.
`looked_at` reads heads alone, so that room can be found, or not, before `decoded` takes it.
"""

import base64
import binascii
import re
from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image

from adapt.data.pictures import PictureProblem, head_of, open_picture
from adapt.serving.api_errors import ApiError, too_large
from adapt.serving.settings import MIB, Limits

HEAD = re.compile(r"data:(?:image/[\w.+-]+|application/octet-stream)?;base64,", re.IGNORECASE)
LONGEST_HEAD = 100  # characters of a data URL before its content


@dataclass(frozen=True, kw_only=True)
class File:
    """A picture's file as it came, and the parameter that it came in."""

    content: bytes
    param: str


def is_data(url: str) -> bool:
    """Whether a URL brings its content along."""
    return url[:5].lower() == "data:"


def content_of(url: str, param: str, limits: Limits) -> bytes:
    """The bytes in a data URL; `ApiError` for anything else, or too many of them."""
    head = HEAD.match(url[:LONGEST_HEAD])
    if head is None:
        form = "data:image/png;base64,... with a picture in it"
        raise ApiError(f"{param}: expected {form}", param=param, code="invalid_image_url")
    # Four characters are three bytes, so nothing has to be decoded to know how many there are.
    if (len(url) - head.end()) * 3 // 4 > limits.picture_mib * MIB + 3:
        raise too_large(f"{param}: a picture of more than {limits.picture_mib} MiB", param)
    try:
        content = base64.b64decode(url[head.end() :], validate=True)
    except (binascii.Error, ValueError):
        problem = "the content of the data URL is not base64"
        raise ApiError(f"{param}: {problem}", param=param, code="invalid_base64") from None
    check_bytes(len(content), param, limits)
    return content


def check_bytes(count: int, param: str, limits: Limits) -> None:
    """`ApiError` for a picture's file of more bytes than one may have."""
    if count > limits.picture_mib * MIB:
        raise too_large(f"{param}: a picture of more than {limits.picture_mib} MiB", param)


def looked_at(files: Sequence[File], limits: Limits) -> int:
    """The pixels of all files, from their heads; `ApiError` for one that is not decoded here."""
    pixels = 0
    for file in files:
        try:
            head = head_of(file.content)
        except PictureProblem as error:
            raise _refused(file, error) from None
        width, height = head.size
        if width * height > limits.pixels:
            problem = f"has {width} x {height} pixels, more than {limits.pixels:,}"
            raise too_large(f"{file.param}: the picture {problem}", file.param)
        if head.is_animated:
            problem = "the picture has several frames; send the one that you ask about"
            raise ApiError(f"{file.param}: {problem}", param=file.param, code="invalid_image")
        pixels += width * height
    return pixels


def decoded(files: Sequence[File]) -> list[Image.Image]:
    """The pictures, RGB and upright, as every stage sees them."""
    found = []
    for file in files:
        try:
            found.append(open_picture(file.content))
        except PictureProblem as error:
            raise _refused(file, error) from None
    return found


def _refused(file: File, error: PictureProblem) -> ApiError:
    return ApiError(f"{file.param}: the picture {error}", param=file.param, code="invalid_image")
