"""Pixels as they are seen: of 8 bits, in RGB on white, upright, whatever the file has.

`pictures.py` says the rules and why; this is their arithmetic.
"""

import numpy as np
from PIL import Image, TiffImagePlugin

MODES = ("1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr")
WIDE = ("I;16", "I;16B", "I;16L", "I;16N")

ORIENTATION = 274  # tag of EXIF
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def orientation_of(picture: Image.Image) -> int:
    """How the camera was held, 1 to 8 as EXIF has it; 1 where it says something else."""
    value = picture.getexif().get(ORIENTATION, 1)
    return value if value in UPRIGHT else 1


def in_8_bits(picture: Image.Image) -> Image.Image:
    """16 bits (12 in some TIFF) as their high byte; a transparent value stays one."""
    clear = picture.info.get("transparency")
    if picture.mode not in WIDE:  # colours: Pillow has left their high bytes
        if isinstance(clear, tuple):
            picture.info["transparency"] = tuple(value >> 8 for value in clear)
        return picture
    tags = getattr(picture, "tag_v2", {})
    numbers = np.asarray(picture)
    grey = (numbers >> (4 if tags.get(TiffImagePlugin.BITSPERSAMPLE) == (12,) else 8)).clip(0, 255)
    if tags.get(TiffImagePlugin.PHOTOMETRIC_INTERPRETATION) == 0:  # white is zero
        grey = 255 - grey
    layer = Image.fromarray(grey.astype(np.uint8))
    if clear is not None:
        layer = Image.merge("LA", (layer, Image.fromarray(np.uint8(255) * (numbers != clear))))
    return layer


def in_colour(picture: Image.Image) -> tuple[Image.Image, bool]:
    """RGB, and whether anything of it was transparent, which is white now."""
    if not picture.has_transparency_data:
        return picture if picture.mode == "RGB" else picture.convert("RGB"), False
    layer = picture
    if picture.mode not in ("LA", "RGBA"):
        layer = picture.convert("LA" if picture.mode == "La" else "RGBA")
    is_clear = layer.getchannel("A").getextrema()[0] != 255
    white = Image.new("RGB", layer.size, "white")
    white.paste(layer, mask=layer)
    return white, is_clear
