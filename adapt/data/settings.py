"""Sections `data` and `scenes`: where the splits come from, and the world that is drawn."""

from typing import Annotated

from pydantic import Field

from adapt.data.schema import SPLITS
from adapt.params import Count, Seed, Settings, Share, Shared, Text

SMALLEST_IMAGE = 24  # below 8 pixels a cell of the drawn world nobody can tell the things apart


class ScenesConfig(Settings):
    """Section `scenes`: the drawn world of `data.source: scenes` and `base.source: scratch`."""

    train_images: Count
    validation_images: Count
    test_images: Count
    image_size: Annotated[int, Field(ge=SMALLEST_IMAGE, le=4096)]
    caption_noise: Share

    def images(self, split: str) -> int:
        """How many images a split has."""
        counts = (self.train_images, self.validation_images, self.test_images)
        return dict(zip(SPLITS, counts, strict=True))[split]


class Config(Settings):
    """Section `data`; `source` is "scenes" or a folder."""

    source: Text
    max_rejected: Share
    scenes: Shared[ScenesConfig]
    seed: Shared[Seed]
