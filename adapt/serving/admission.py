"""How many pixels wait at once: pictures are refused before they are decoded, not after."""

from adapt.serving.api_errors import busy


class Admission:
    """Room for decoded pictures in one replica; used from its event loop alone.

    A request takes its room from the sizes that the heads of its pictures say, and gives it back
    when it is answered. A picture of RGB takes 3 bytes a pixel.
    """

    def __init__(self, held_pixels: int) -> None:
        self._most, self.held = held_pixels, 0

    def take(self, pixels: int) -> None:
        """Room for so many pixels; 429 where others hold too many.

        A request alone always has room: limits of its own bound it.
        """
        if self.held and self.held + pixels > self._most:
            raise busy("too many pixels are waiting for answers; ask again in a moment")
        self.held += pixels

    def give_back(self, pixels: int) -> None:
        """They are not held any more."""
        self.held -= pixels
        assert self.held >= 0, "given back twice"
