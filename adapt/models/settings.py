"""Section `base`: the model that a retraining starts from."""

from typing import Self

from pydantic import model_validator

from adapt.params import Count, Positive, Seed, Settings, Shared, Text, require


class ScratchConfig(Settings):
    """`base.scratch`: size and training of the embedded default model, source "scratch".

    `learning_rate` is the peak of a one-cycle schedule, in both phases.
    """

    vision_steps: Count
    vision_batch: Count
    language_steps: Count
    language_batch: Count
    learning_rate: Positive
    width: Count
    vision_layers: Count
    text_layers: Count
    heads: Count
    patch_size: Count

    @model_validator(mode="after")
    def _heads_divide_width(self) -> Self:
        problem = f"must be divisible by heads ({self.heads}), got {self.width}"
        require(self.width % self.heads == 0, "width", problem)
        return self


class Config(Settings):
    """Section `base`; `source` is "scratch", a folder, a hub id, or models:/NAME@ALIAS."""

    source: Text
    scratch: ScratchConfig
    max_new_tokens: Shared[Count]
    seed: Shared[Seed]
