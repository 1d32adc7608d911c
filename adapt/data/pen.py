"""The drawn world's colours, and a pen that draws filled shapes inside a square of a picture."""

from PIL import Image, ImageDraw

Colour = tuple[int, int, int] | tuple[int, int, int, int]

COLOURS: dict[str, Colour] = {
    "red": (222, 43, 49),
    "yellow": (248, 196, 28),
    "green": (46, 158, 74),
    "blue": (37, 104, 219),
    "purple": (126, 58, 178),
    "pink": (245, 124, 182),
}
INK: Colour = (52, 52, 66)
WHITE: Colour = (255, 255, 255)
WOOD: Colour = (133, 91, 58)
LEAF: Colour = (92, 130, 60)
CLEAR: Colour = (0, 0, 0, 0)


class Pen:
    """Draws in 0..100 coordinates inside a square; `main` and `dark` are the thing's colours."""

    def __init__(
        self, canvas: Image.Image, colour: Colour, left: float, top: float, side: float
    ) -> None:
        self._draw = ImageDraw.Draw(canvas)
        self._origin, self._unit = (left, top), side / 100
        self.main = colour
        self.dark: Colour = (int(colour[0] * 0.68), int(colour[1] * 0.68), int(colour[2] * 0.68))

    def _at(self, *xy: float) -> list[float]:
        return [self._origin[i % 2] + value * self._unit for i, value in enumerate(xy)]

    def shape(self, fill: Colour, *xy: float) -> None:
        """A filled polygon through x, y, x, y, ..."""
        self._draw.polygon(self._at(*xy), fill=fill)

    def box(
        self, fill: Colour, x0: float, y0: float, x1: float, y1: float, radius: float = 0
    ) -> None:
        """A filled rectangle, its corners rounded by `radius`."""
        self._draw.rounded_rectangle(self._at(x0, y0, x1, y1), radius * self._unit, fill=fill)

    def oval(self, fill: Colour, x0: float, y0: float, x1: float, y1: float) -> None:
        """A filled ellipse."""
        self._draw.ellipse(self._at(x0, y0, x1, y1), fill=fill)

    def pie(
        self, fill: Colour, x0: float, y0: float, x1: float, y1: float, start: float, end: float
    ) -> None:
        """A filled slice of an ellipse, degrees clockwise from three o'clock."""
        self._draw.pieslice(self._at(x0, y0, x1, y1), start, end, fill=fill)

    def ring(
        self, fill: Colour, x0: float, y0: float, x1: float, y1: float, width: float, *arc: float
    ) -> None:
        """The outline of an ellipse; with `arc`, its start and end, of a part of it."""
        start, end = arc or (0, 360)
        thickness = round(width * self._unit)
        self._draw.arc(self._at(x0, y0, x1, y1), start, end, fill=fill, width=thickness)

    def line(self, fill: Colour, width: float, *xy: float) -> None:
        """A line with round joints through x, y, x, y, ..."""
        self._draw.line(self._at(*xy), fill=fill, width=round(width * self._unit), joint="curve")
