"""Twenty-four everyday things as flat little drawings, told apart by their outline alone.

`sprite(kind, colour, cell, side, left, top)` draws one thing into a square cell and says where it
is. Drawings are made on a canvas several times larger and shrunk, so that outlines are smooth at 16
pixels. Coordinates run from 0 to 100 inside the square that the thing may fill (`pen.Pen`). The
colour of the thing is the colour of its largest part; parts in ink, wood or white are the same for
all colours, so that the colour word stays well defined.
"""

import math
from collections.abc import Callable

from PIL import Image

from adapt.data.pen import CLEAR, COLOURS, INK, LEAF, WHITE, WOOD, Pen

Box = tuple[float, float, float, float]

CANVAS = 128  # pixels of the enlarged cell, at least


def house(pen: Pen) -> None:
    """A square with a wide dark roof, a door and a window."""
    pen.box(pen.main, 14, 42, 86, 98)
    pen.shape(INK, 0, 46, 50, 2, 100, 46)
    pen.box(WHITE, 58, 58, 78, 98)
    pen.box(WHITE, 24, 56, 46, 76)


def car(pen: Pen) -> None:
    """Low, with a cabin in the middle and two wheels."""
    pen.shape(pen.main, 18, 52, 32, 24, 68, 24, 84, 52)
    pen.shape(WHITE, 28, 50, 37, 31, 48, 31, 48, 50)
    pen.shape(WHITE, 53, 50, 53, 31, 65, 31, 74, 50)
    pen.box(pen.main, 0, 48, 100, 74, 9)
    for x in (12, 62):
        pen.oval(INK, x, 58, x + 27, 85)
        pen.oval(WHITE, x + 9, 67, x + 18, 76)


def bus(pen: Pen) -> None:
    """Tall and full, a band of windows, two small wheels."""
    pen.box(pen.main, 0, 12, 100, 84, 9)
    for x in (8, 31, 54, 77):
        pen.box(WHITE, x, 24, x + 16, 48)
    pen.box(pen.dark, 0, 58, 100, 66)
    for x in (14, 66):
        pen.oval(INK, x, 72, x + 21, 93)


def bicycle(pen: Pen) -> None:
    """Two big open wheels joined by a thin frame."""
    for x in (0, 56):
        pen.ring(INK, x, 48, x + 44, 92, 8)
    pen.line(pen.main, 10, 22, 70, 36, 36, 68, 36, 49, 70, 22, 70)
    pen.line(pen.main, 10, 34, 26, 49, 70)
    pen.line(pen.main, 10, 66, 22, 78, 70)
    pen.box(INK, 22, 18, 46, 27, 4)
    pen.line(INK, 9, 58, 17, 82, 17)


def tree(pen: Pen) -> None:
    """A round crown on a brown trunk."""
    pen.box(WOOD, 41, 58, 59, 100)
    pen.oval(pen.main, 6, 24, 56, 72)
    pen.oval(pen.main, 44, 24, 94, 72)
    pen.oval(pen.main, 22, 0, 78, 56)


def flag(pen: Pen) -> None:
    """A cloth at the top right of a long pole."""
    pen.line(INK, 8, 16, 0, 16, 100)
    pen.shape(pen.main, 20, 4, 48, 12, 70, 2, 98, 8, 98, 56, 70, 50, 48, 60, 20, 52)


def cup(pen: Pen) -> None:
    """A wide cup with a handle at the right, on a saucer."""
    pen.ring(pen.main, 60, 26, 98, 64, 11)
    pen.shape(pen.main, 4, 18, 76, 18, 74, 54, 62, 76, 18, 76, 6, 54)
    pen.oval(WHITE, 8, 10, 72, 26)
    pen.box(pen.dark, 0, 80, 84, 90, 5)


def bottle(pen: Pen) -> None:
    """Upright and narrow, with a thin neck and a white label."""
    pen.box(INK, 38, 0, 62, 11)
    pen.shape(pen.main, 41, 11, 59, 11, 59, 28, 74, 48, 74, 60, 26, 60, 26, 48, 41, 28)
    pen.box(pen.main, 26, 50, 74, 100, 8)
    pen.box(WHITE, 26, 58, 74, 80)


def apple(pen: Pen) -> None:
    """Two round cheeks, a stem and a leaf."""
    pen.oval(pen.main, 6, 24, 60, 84)
    pen.oval(pen.main, 40, 24, 94, 84)
    pen.oval(pen.main, 18, 44, 82, 98)
    pen.line(WOOD, 9, 50, 34, 54, 6)
    pen.shape(LEAF, 54, 18, 68, 2, 90, 2, 78, 18)


def banana(pen: Pen) -> None:
    """A crescent from the lower left to a dark stem at the top right."""
    angles = [math.radians(degrees) for degrees in range(-18, 127, 4)]
    bulge = [3 + 15 * math.sin(math.pi * i / (len(angles) - 1)) ** 0.7 for i in range(len(angles))]
    arc = list(zip(angles, bulge, strict=True))
    outer = [(32 + (52 + b) * math.cos(a), 24 + (52 + b) * math.sin(a)) for a, b in arc]
    inner = [(32 + (52 - b) * math.cos(a), 24 + (52 - b) * math.sin(a)) for a, b in arc]
    pen.shape(pen.main, *(value for point in outer + inner[::-1] for value in point))
    pen.shape(WOOD, 77, 16, 72, 0, 84, 0, 90, 16)


def fork(pen: Pen) -> None:
    """Three tines over a long handle."""
    for x in (20, 43, 66):
        pen.box(pen.main, x, 0, x + 14, 40, 5)
    pen.pie(pen.main, 20, 10, 80, 60, 0, 180)
    pen.box(pen.main, 42, 50, 58, 100, 6)


def cake(pen: Pen) -> None:
    """Two broad layers with white icing and three candles."""
    for x in (22, 47, 72):
        pen.box(INK, x, 8, x + 7, 36)
    pen.box(pen.main, 14, 34, 86, 62, 6)
    pen.box(pen.main, 0, 62, 100, 96, 6)
    pen.box(WHITE, 14, 42, 86, 50)
    pen.box(WHITE, 0, 70, 100, 79)


def chair(pen: Pen) -> None:
    """From the side: a high back, a seat, two legs."""
    pen.box(pen.main, 14, 0, 30, 100, 4)
    pen.box(pen.main, 14, 48, 86, 64, 4)
    pen.box(pen.main, 72, 50, 86, 100, 4)


def table(pen: Pen) -> None:
    """A wide top on two slanting legs."""
    pen.box(pen.main, 0, 26, 100, 44, 5)
    pen.shape(WOOD, 12, 44, 25, 44, 17, 92, 4, 92)
    pen.shape(WOOD, 75, 44, 88, 44, 96, 92, 83, 92)


def bed(pen: Pen) -> None:
    """A long low blanket, a pillow, a dark headboard."""
    pen.box(WOOD, 0, 20, 10, 88)
    pen.box(WOOD, 90, 46, 100, 88)
    pen.box(WHITE, 10, 40, 38, 60, 7)
    pen.box(pen.main, 10, 54, 90, 78)
    pen.shape(pen.main, 34, 54, 44, 42, 90, 42, 90, 54)


def lamp(pen: Pen) -> None:
    """A shade, wider below, on a thin stand with a foot."""
    pen.line(INK, 8, 50, 46, 50, 92)
    pen.box(INK, 26, 90, 74, 100, 4)
    pen.shape(pen.main, 32, 0, 68, 0, 92, 52, 8, 52)


def clock(pen: Pen) -> None:
    """A thick ring around a white face with two hands."""
    pen.oval(pen.main, 2, 2, 98, 98)
    pen.oval(WHITE, 20, 20, 80, 80)
    pen.line(INK, 8, 50, 26, 50, 52, 68, 62)


def cat(pen: Pen) -> None:
    """Sitting, with pointed ears, eyes and a tail that curls up."""
    pen.ring(pen.main, 54, 42, 100, 98, 12, 270, 110)
    pen.box(pen.main, 16, 46, 72, 100, 24)
    pen.box(pen.main, 16, 74, 76, 100, 8)
    pen.shape(pen.main, 12, 0, 34, 16, 50, 16, 72, 0, 72, 42, 12, 42)
    pen.oval(pen.main, 12, 12, 72, 62)
    for x in (22, 49):
        pen.oval(WHITE, x, 28, x + 14, 43)
        pen.oval(INK, x + 4, 31, x + 10, 42)
    pen.shape(INK, 37, 48, 47, 48, 42, 54)


def boat(pen: Pen) -> None:
    """A dark hull under one tall triangular sail."""
    pen.line(INK, 6, 42, 2, 42, 74)
    pen.shape(pen.main, 48, 2, 96, 64, 48, 64)
    pen.shape(pen.main, 36, 18, 36, 64, 8, 64)
    pen.shape(WOOD, 0, 72, 100, 72, 84, 96, 16, 96)


def fish(pen: Pen) -> None:
    """A long oval with a forked tail at the left and an eye."""
    pen.shape(pen.main, 40, 50, 0, 20, 10, 50, 0, 80)
    pen.oval(pen.main, 22, 22, 100, 78)
    pen.oval(WHITE, 72, 36, 87, 51)
    pen.oval(INK, 77, 40, 85, 48)
    pen.ring(pen.dark, 34, 28, 66, 72, 6, 300, 60)


def umbrella(pen: Pen) -> None:
    """A half disc with a scalloped edge and a hooked stick."""
    pen.pie(pen.main, 0, 6, 100, 110, 180, 360)
    for x in (0, 33, 66):
        pen.oval(CLEAR, x, 49, x + 34, 68)
    pen.line(INK, 8, 50, 0, 50, 10)
    pen.line(INK, 8, 50, 46, 50, 88)
    pen.ring(INK, 30, 76, 54, 100, 8, 0, 180)


def ball(pen: Pen) -> None:
    """A beach ball: slices of colour and white around a middle."""
    pen.oval(pen.main, 2, 2, 98, 98)
    for start in (15, 135, 255):
        pen.pie(WHITE, 2, 2, 98, 98, start, start + 52)
    pen.oval(pen.dark, 40, 40, 60, 60)


def kite(pen: Pen) -> None:
    """A diamond with a cross and a tail of bows."""
    pen.shape(pen.main, 56, 0, 96, 34, 46, 78, 16, 24)
    pen.line(WHITE, 5, 56, 0, 46, 78)
    pen.line(WHITE, 5, 16, 24, 96, 34)
    pen.line(INK, 6, 46, 76, 34, 90, 18, 84, 6, 98)
    pen.shape(INK, 12, 76, 26, 76, 16, 96, 28, 96)


def star(pen: Pen) -> None:
    """Five points."""
    outline = []
    for i in range(5):
        tip, dent = 2 * math.pi * i / 5, 2 * math.pi * (i + 0.5) / 5
        outline += [50 + 52 * math.sin(tip), 54 - 54 * math.cos(tip)]
        outline += [50 + 24 * math.sin(dent), 54 - 24 * math.cos(dent)]
    pen.shape(pen.main, *outline)


DRAWINGS: dict[str, Callable[[Pen], None]] = {
    draw.__name__: draw
    for draw in (
        *(house, car, bus, bicycle, tree, flag),
        *(cup, bottle, apple, banana, fork, cake),
        *(chair, table, bed, lamp, clock, cat),
        *(boat, fish, umbrella, ball, kite, star),
    )
}


def sprite(
    kind: str, colour: str, cell: int, side: float, left: float, top: float
) -> tuple[Image.Image, Box]:
    """One thing in a transparent square of `cell` pixels, and its tight box in these pixels.

    The thing may fill the square of `side` pixels whose corner is at (`left`, `top`).
    """
    factor = max(2, -(-CANVAS // cell))
    canvas = Image.new("RGBA", (cell * factor, cell * factor), (*COLOURS[colour], 0))
    DRAWINGS[kind](Pen(canvas, COLOURS[colour], left * factor, top * factor, side * factor))
    bounds = canvas.getbbox(alpha_only=True)
    assert bounds is not None, kind
    x0, y0, x1, y1 = (value / factor for value in bounds)
    return canvas.reduce(factor), (x0, y0, x1, y1)
