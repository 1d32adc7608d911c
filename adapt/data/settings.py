"""Section `data`: where the splits come from."""

from typing import Annotated

from pydantic import Field

from adapt.data.scenes import SMALLEST_IMAGE
from adapt.data.schema import SPLITS
from adapt.params import Count, Seed, Settings, Share, Shared, Text


class ScenesConfig(Settings):
    """`data.scenes`: the world that source "scenes" draws."""

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
    scenes: ScenesConfig
    seed: Shared[Seed]
