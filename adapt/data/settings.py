"""Sections `data` and `scenes`: where the splits come from, and the world that is drawn."""

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Field, model_validator

from adapt.data.schema import SPLITS
from adapt.params import Count, Natural, Seed, Settings, Share, Shared, Text, either, require

# Which world is drawn: `adapt/data/worlds.py` says what is hard about "hard".
Difficulty = Literal["default", "hard"]
SMALLEST_IMAGE = 24  # below 8 pixels a cell of the drawn world nobody can tell the things apart
Size = Annotated[
    Natural | Annotated[float, Field(ge=0, lt=1)],
    either("a share below 1.0, or a whole number of pictures"),
]


class ScenesConfig(Settings):
    """Section `scenes`: the drawn world of `data.source: scenes` and `base.source: scratch`."""

    difficulty: Difficulty
    train_images: Count
    validation_images: Count
    test_images: Count
    image_size: Annotated[int, Field(ge=SMALLEST_IMAGE, le=4096)]
    caption_noise: Share

    def images(self, split: str) -> int:
        """How many images a split has."""
        counts = (self.train_images, self.validation_images, self.test_images)
        return dict(zip(SPLITS, counts, strict=True))[split]


class SplitConfig(Settings):
    """`data.split`: sizes of the splits that the source does not give."""

    validation: Size
    test: Size

    @model_validator(mode="after")
    def _leaves_rows_to_train_on(self) -> "SplitConfig":
        shares = sum(s for s in self.sizes().values() if isinstance(s, float))
        require(shares < 1, "test", f"with validation takes {shares:g} of the rows; leave some")
        return self

    def sizes(self) -> Mapping[str, int | float]:
        """By the split's name: a share of the pictures, or how many."""
        return {"validation": self.validation, "test": self.test}


class Config(Settings):
    """Section `data`; `source` is "scenes", a folder, a file, hf:owner/name or an address.

    `pictures` is a folder in which pictures are looked for first, "" for none.
    """

    source: Text
    format: Text
    pictures: str
    split: SplitConfig
    max_rejected: Share
    scenes: Shared[ScenesConfig]
    seed: Shared[Seed]
