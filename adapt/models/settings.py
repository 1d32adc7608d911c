"""Sections `base` and `prompt`: the model that a retraining starts from, and how it is asked."""

from typing import Literal, Self

from pydantic import model_validator

from adapt.data.settings import ScenesConfig
from adapt.params import Count, Positive, Seed, Settings, Shared, Text, require

# Where models go: "auto" is a GPU where there is one.
Device = Literal["auto", "cuda", "cpu", "mps"]


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


class PromptConfig(Settings):
    """Section `prompt`: what is written into the model's chat template, "" for nothing.

    `template` is a file that replaces it, `system` a system prompt.
    """

    template: str
    system: str


class Config(Settings):
    """Section `base`; `source` is "scratch", a folder, a hub id, or models:/NAME@ALIAS."""

    source: Text
    scratch: ScratchConfig
    scenes: Shared[ScenesConfig]
    prompt: Shared[PromptConfig]
    device: Shared[Device]
    max_new_tokens: Shared[Count]
    seed: Shared[Seed]

    @model_validator(mode="after")
    def _scratch_has_its_prompt(self) -> Self:
        is_asked_otherwise = bool(self.prompt.template or self.prompt.system)
        problem = "scratch learns its own template; with it, leave section prompt empty"
        require(self.source != "scratch" or not is_asked_otherwise, "source", problem)
        return self
