"""What can be said of attention without reading any: section `anchor`, layers, the signals' names.

No torch here, so that configuration loads, and answers are judged, without it.
"""

from typing import Annotated, Literal

from pydantic import Field

from adapt.params import Count, Natural, Settings, either

SIGNALS = ("mass", "focus", "amc", "responsiveness", "drift")
"""The degradation signals, one value per generated token: docs/method.md, section 1."""

PRELIM = ("pas", "prelim")
"""Attention to the answer's own tokens so far: of the first layer, and mean over layers."""
PLACES = ("middle", "last")
MEASURES = ("nearest", "overall")
"""Of similarity with the image tokens, `adapt/attention/similarity.py`: where, and how."""
SIMILARITY = tuple(f"{measure}_{place}" for place in PLACES for measure in MEASURES)


_Listed = Annotated[tuple[Natural, ...], Field(min_length=1)]
Layers = Annotated[Literal["all"] | _Listed, either("all, or layers counted from 0 such as [0, 1]")]
"""Decoder layers, counted from 0."""


def includes(layers: Layers, layer: int) -> bool:
    """Whether a layer is one of `layers`.

    >>> includes("all", 7), includes((0, 1), 7)
    (True, False)
    """
    return layers == "all" or layer in layers


def beyond(layers: Layers, count: int) -> list[int]:
    """Those of `layers` that a decoder of `count` layers does not have."""
    return [] if layers == "all" else [layer for layer in layers if layer >= count]


class AnchorConfig(Settings):
    """Section `anchor`: the cross-attention visual anchor, docs/method.md section 2."""

    anchor_tokens: Count  # K, the generated tokens that the anchor is read from
    noise_images: Count
