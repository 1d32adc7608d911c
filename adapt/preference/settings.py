"""Sections `pairs` and `train`: preference pairs, and the training on them."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from adapt import params
from adapt.attention.settings import AnchorConfig, Layers
from adapt.generation.settings import Batch
from adapt.models.settings import Device
from adapt.params import (
    Count,
    Natural,
    NonNegative,
    Positive,
    Seed,
    Settings,
    Share,
    Shared,
    Text,
    either,
)

Kind = Literal["describe", "exists", "colour"]
PairsFrom = Literal["auto", "sample", "given", "both"]
# The pairwise losses of TRL's `DPOConfig.loss_type` that need no further option ("exo_pair" does).
LossType = Literal[  # noqa: RUF041 (flat, it would take thirteen lines)
    Literal["sigmoid", "sigmoid_norm", "hinge", "ipo", "robust", "nca_pair", "bco_pair"],
    Literal["sppo_hard", "aot", "aot_unpaired", "apo_zero", "apo_down", "discopop"],
]


class PairsConfig(Settings):
    """Section `pairs`; `limit` is of given pairs, the five keys behind it of sampled ones."""

    source: PairsFrom
    limit: Natural
    images: Count
    kinds: Annotated[tuple[Kind, ...], Field(min_length=1)]
    samples: Annotated[int, Field(ge=2, le=1024)]  # a pair needs two answers
    temperature: Positive
    min_gap: Positive
    batch: Batch
    anchor: Shared[AnchorConfig]
    device: Shared[Device]
    max_new_tokens: Shared[Count]
    seed: Shared[Seed]


_Names = Annotated[tuple[Text, ...], Field(min_length=1)]
Targets = Annotated[
    Literal["all"] | _Names, either("all, or names of linear layers such as [q_proj, v_proj]")
]
"""Linear layers: all of a part, or those whose names end so."""
Tower = Literal["frozen", "lora", "full"]
Precision = Literal["auto", "fp32", "bf16"]
SaveDtype = Literal["auto", "fp32", "bf16", "fp16"]


class LoraConfig(Settings):
    """`train.lora`: low-rank adapters (arXiv 2106.09685); rank 0 trains the weights themselves."""

    rank: Natural
    alpha: NonNegative  # 0: twice the rank
    dropout: Annotated[float, Field(ge=0, lt=1)]
    targets: Targets
    bits: Literal[4, 16]

    @model_validator(mode="after")
    def _adapts(self) -> Self:
        problem = "a base in 4 bits is trained by adapters; set lora.rank above 0"
        params.require(self.bits == 16 or self.rank > 0, "bits", problem)
        return self

    @property
    def scale(self) -> float:
        """alpha, the numerator of the adapters' scale alpha / rank."""
        return self.alpha or 2.0 * self.rank


class Config(Settings):
    """Section `train`."""

    workers: Natural
    max_failures: Natural
    wait_minutes: Natural
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
    tower: Tower
    tower_learning_rate: Positive
    lora: LoraConfig
    precision: Precision
    save_dtype: SaveDtype
    gradient_checkpointing: bool
    checkpoint_every: Count
    log_every: Count
    device: Shared[Device]
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
        problem = "a base in 4 bits computes in bf16; set precision to auto or bf16"
        params.require(self.lora.bits == 16 or self.precision != "fp32", "precision", problem)
        problem = "adapters of the tower need lora.rank above 0"
        params.require(self.tower != "lora" or self.lora.rank > 0, "tower", problem)
        problem = "with lora.rank above 0 adapters alone are trained; set tower to frozen or lora"
        params.require(self.tower != "full" or self.lora.rank == 0, "tower", problem)
        return self

    @property
    def processes(self) -> int:
        """Processes that train side by side: the Ray workers, or this one."""
        return max(self.workers, 1)

    @property
    def pass_pairs(self) -> int:
        """Pairs that one process takes in one forward and backward pass."""
        return self.batch_pairs // (self.processes * self.accumulation)
