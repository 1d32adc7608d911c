"""Sections `pairs` and `train`: preference pairs, and the training on them."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from adapt import params
from adapt.attention.settings import AnchorConfig, Layers
from adapt.params import Count, Natural, NonNegative, Positive, Seed, Settings, Share, Shared

Kind = Literal["describe", "exists", "colour"]
# The pairwise losses of TRL's `DPOConfig.loss_type` that need no further option ("exo_pair" does).
LossType = Literal[  # noqa: RUF041 (flat, it would take thirteen lines)
    Literal["sigmoid", "sigmoid_norm", "hinge", "ipo", "robust", "nca_pair", "bco_pair"],
    Literal["sppo_hard", "aot", "aot_unpaired", "apo_zero", "apo_down", "discopop"],
]


class PairsConfig(Settings):
    """Section `pairs`."""

    images: Count
    kinds: Annotated[tuple[Kind, ...], Field(min_length=1)]
    samples: Annotated[int, Field(ge=2, le=1024)]  # a pair needs two answers
    temperature: Positive
    min_gap: Positive
    batch: Count
    anchor: Shared[AnchorConfig]
    max_new_tokens: Shared[Count]
    seed: Shared[Seed]


class Config(Settings):
    """Section `train`."""

    workers: Natural
    max_failures: Natural
    batch_pairs: Count
    accumulation: Count
    steps: Count
    learning_rate: Positive
    beta: Positive
    loss_type: LossType
    w_vag: NonNegative
    w_dpo: NonNegative
    w_sft: NonNegative
    w_attn: NonNegative
    attn_layers: Layers
    noise: Share
    lora_rank: Natural
    precision: Literal["auto", "fp32", "bf16"]
    gradient_checkpointing: bool
    checkpoint_every: Count
    log_every: Count
    anchor: Shared[AnchorConfig]
    seed: Shared[Seed]

    @model_validator(mode="after")
    def _keys_agree(self) -> Self:
        is_used = self.loss_type == "sigmoid" or self.w_dpo > 0
        problem = f"{self.loss_type} is the form of the same-image term, whose weight w_dpo is 0"
        params.require(is_used, "loss_type", problem)
        problem = "all loss weights (w_vag, w_dpo, w_sft, w_attn) are 0: nothing to train"
        params.require(self.w_vag + self.w_dpo + self.w_sft + self.w_attn > 0, "w_vag", problem)
        passes = f"{self.accumulation} passes of {self.processes} workers"
        problem = f"{self.batch_pairs} pairs do not divide into {passes}"
        is_whole = self.batch_pairs % (self.processes * self.accumulation) == 0
        params.require(is_whole, "batch_pairs", problem)
        return self

    @property
    def processes(self) -> int:
        """Processes that train side by side: the Ray workers, or this one."""
        return max(self.workers, 1)

    @property
    def pass_pairs(self) -> int:
        """Pairs that one process takes in one forward and backward pass."""
        return self.batch_pairs // (self.processes * self.accumulation)
