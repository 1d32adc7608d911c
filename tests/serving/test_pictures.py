"""Pictures of requests: bounded before they are decoded."""

import numpy as np
import pytest
from PIL import Image

from adapt.serving import pictures
from adapt.serving.api_errors import ApiError
from tests.support import doors, tiny_world
from tests.support.pngs import bomb, chunk

LIMITS = doors.settings(picture_mib=1, pixels=10_000).limits


def refused(content: bytes) -> ApiError:
    with pytest.raises(ApiError) as raised:
        pictures.looked_at([pictures.File(content=content, param="here")], LIMITS)
    return raised.value


def test_a_picture_is_seen_as_every_stage_sees_it():
    content = doors.encoded(tiny_world.picture(3))
    found = pictures.content_of(doors.url(content), "here", LIMITS)
    files = [pictures.File(content=found, param="here")] * 2
    assert found == content and pictures.looked_at(files, LIMITS) == 2 * 32 * 32
    assert np.array_equal(pictures.decoded(files)[1], tiny_world.picture(3))


@pytest.mark.parametrize(
    "url",
    [
        *("", "data:", "data:,", "data:image/png,AAAA", "data:text/html;base64,AAAA"),
        *("data:image/png;base64,A*A", "data:image/png;base64,AAA", "data:image/png;base64,é"),
        *("/etc/passwd", "file:///etc/passwd", "data:image/png;base64;base64,AAAA"),
    ],
)
def test_only_data_urls_of_pictures_are_read(url):
    with pytest.raises(ApiError) as raised:
        pictures.content_of(url, "here", LIMITS)
    assert raised.value.status == 400 and raised.value.param == "here"


def test_bytes_are_counted_before_they_are_decoded():
    with pytest.raises(ApiError) as raised:
        pictures.content_of("data:image/png;base64," + "*" * (1 << 21), "here", LIMITS)
    assert raised.value.status == 413


@pytest.mark.parametrize("size", [(101, 100), (40_000, 40_000), (2**31 - 1, 2**31 - 1)])
def test_pixels_are_counted_before_they_are_decoded(size, monkeypatch):
    monkeypatch.setattr(Image.Image, "load", lambda self: pytest.fail("decoded"))
    exif = chunk(b"eXIf", b"MM\0*\0\0\0\x08\0\0")
    for content in (bomb(*size), bomb(*size, exif)):
        assert refused(content).status in (400, 413)


def test_what_moves_is_refused_and_what_only_has_a_second_picture_is_not():
    still, other = Image.new("RGB", (8, 8)), Image.new("RGB", (8, 8), "red")
    for form in ("GIF", "WEBP", "PNG", "TIFF"):
        content = doors.encoded(still, form, save_all=True, append_images=[other])
        assert "several frames" in refused(content).message
    photo = doors.encoded(still, "MPO", save_all=True, append_images=[other])
    assert pictures.looked_at([pictures.File(content=photo, param="")], LIMITS) == 64


def test_a_damaged_picture_is_refused():
    whole = doors.encoded(tiny_world.picture(0))
    assert refused(b"").code == refused(b"<svg/>").code == "invalid_image"
    for content in (whole[: len(whole) // 2], whole[:60] + b"\xff" * 40 + whole[100:]):
        with pytest.raises(ApiError) as raised:
            pictures.decoded([pictures.File(content=content, param="here")])
        assert raised.value.code == "invalid_image"
