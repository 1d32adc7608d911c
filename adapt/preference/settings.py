"""Section `train`: training on preference pairs."""

import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import Field, model_validator

from adapt import params
from adapt.attention.settings import AnchorConfig, Layers
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

KeepForm = Literal["sft", "kl"]
VagForm = Literal["paper", "same_text", "same_image"]
"""What guidance compares: both answers, each under its own guided picture; the chosen answer under
the plain and the noisy picture; or both answers under the noisy one. docs/method.md, section 4."""
# The pairwise losses of TRL's `DPOConfig.loss_type` that need no further option ("exo_pair" does).
LossType = Literal[  # noqa: RUF041 (flat, it would take thirteen lines)
    Literal["sigmoid", "sigmoid_norm", "hinge", "ipo", "robust", "nca_pair", "bco_pair"],
    Literal["sppo_hard", "aot", "aot_unpaired", "apo_zero", "apo_down", "discopop"],
]
_Mix = Annotated[dict[LossType, Positive], Field(min_length=1)]
_NAMES = ", ".join(name for names in get_args(LossType) for name in (get_args(names) or [names]))
LossMix = Annotated[
    LossType | _Mix,
    either(f"{_NAMES}, or several with weights, such as {{sigmoid: 0.8, bco_pair: 0.2}}"),
]
"""One form of same-image DPO, or the weights of several."""


_Names = Annotated[tuple[Text, ...], Field(min_length=1)]
Targets = Annotated[
    Literal["all"] | _Names, either("all, or names of linear layers such as [q_proj, v_proj]")
]
"""Linear layers: all of a part, or those whose names end so."""
_Range = tuple[Count, Count]
Workers = Annotated[
    Natural | _Range, either("how many, or the fewest and the most of them, such as [1, 4]")
]
"""Ray workers: as many, or as many of a range as there is room for at the time."""
AttnTarget = Literal["early", "anchor", "boxes"]
Tower = Literal["auto", "frozen", "lora", "full"]
Precision = Literal["auto", "fp32", "bf16"]
Shard = Literal["none", "fsdp"]
Optimizer = Literal["adamw", "adamw_8bit", "adafactor"]
Offload = Literal["none", "optimizer"]
SaveDtype = Literal["auto", "fp32", "bf16", "fp16"]
Passes = Annotated[Literal["auto"] | Count, either("auto, or a number of at least 1")]
Switch = Annotated[Literal["auto"] | bool, either("auto, true or false")]


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

    workers: Workers
    shard: Shard
    max_failures: Natural
    wait_minutes: Natural
    batch_pairs: Count
    accumulation: Passes
    steps: Count
    optimizer: Optimizer
    offload: Offload
    learning_rate: Positive
    beta: Positive
    loss_type: LossMix
    w_vag: NonNegative
    vag_form: VagForm
    w_dpo: NonNegative
    w_sft: NonNegative
    w_anchor: NonNegative
    w_attn: NonNegative
    attn_layers: Layers
    attn_target: AttnTarget
    span_weight: Positive
    w_keep: NonNegative
    keep_form: KeepForm
    keep_rows: Count
    noise: Share
    tower: Tower
    tower_learning_rate: Positive
    lora: LoraConfig
    precision: Precision
    save_dtype: SaveDtype
    gradient_checkpointing: Switch
    checkpoint_every: Count
    validation: Natural
    log_every: Count
    device: Shared[Device]
    max_new_tokens: Shared[Count]
    anchor: Shared[AnchorConfig]
    seed: Shared[Seed]

    @model_validator(mode="before")
    @classmethod
    def _chooses_the_tower(cls, values: Any) -> Any:
        """`auto`: trained with all the rest, frozen beside adapters."""
        if isinstance(values, Mapping) and values.get("tower") == "auto":
            lora = values.get("lora")
            rank = lora.get("rank") if isinstance(lora, Mapping) else getattr(lora, "rank", 0)
            return {**values, "tower": "frozen" if rank else "full"}
        return values

    @model_validator(mode="after")
    def _keys_agree(self) -> Self:
        is_used = self.loss_type == "sigmoid" or self.w_dpo > 0
        names = " and ".join(self.loss_mix)
        are = "is the form" if len(self.loss_mix) == 1 else "are forms"
        problem = f"{names} {are} of the same-image term, whose weight w_dpo is 0"
        params.require(is_used, "loss_type", problem)
        problem = "weighs the margins of w_vag, w_dpo and w_anchor, which are 0; set it to 1"
        has_margins = self.w_vag + self.w_dpo + self.w_anchor > 0
        params.require(self.span_weight == 1 or has_margins, "span_weight", problem)
        named = "w_vag, w_dpo, w_sft, w_anchor, w_attn, w_keep"
        problem = f"all loss weights ({named}) are 0: nothing to train"
        params.require(self.total > 0, "w_vag", problem)
        problem = "the fewest come first, as in [1, 4]"
        params.require(len(self._counts) > 0, "workers", problem)
        passes = f"{self.passes} passes of {' to '.join(map(str, self._ends))} workers"
        problem = f"{self.batch_pairs} pairs do not divide into {passes}"
        params.require(bool(self._whole(self.batch_pairs)), "batch_pairs", problem)
        problem = f"{self.keep_rows} rows do not divide into {passes}"
        params.require(bool(self._whole(self._rows)), "keep_rows", problem)
        problem = "a base in 4 bits computes in bf16; set precision to auto or bf16"
        params.require(self.lora.bits == 16 or self.precision != "fp32", "precision", problem)
        problem = "adapters of the tower need lora.rank above 0"
        params.require(self.tower != "lora" or self.lora.rank > 0, "tower", problem)
        problem = "with lora.rank above 0 adapters alone are trained; set tower to frozen or lora"
        params.require(self.tower != "full" or self.lora.rank == 0, "tower", problem)
        return self

    @model_validator(mode="after")
    def _can_be_divided(self) -> Self:
        is_whole = self.shard == "none"
        problem = "fsdp divides a model among Ray's workers; set workers above 0, or shard to none"
        params.require(is_whole or self.workers != 0, "shard", problem)
        problem = "fsdp does not divide a base in 4 bits; set lora.bits to 16, or shard to none"
        params.require(is_whole or self.lora.bits == 16, "shard", problem)
        problem = f"fsdp divides what adamw keeps, not {self.optimizer}; set optimizer to adamw"
        params.require(is_whole or self.optimizer == "adamw", "shard", problem)
        return self

    @model_validator(mode="after")
    def _can_be_offloaded(self) -> Self:
        fits = self.offload == "none" or self.optimizer == "adamw"
        problem = f"main memory takes adamw's moments, not {self.optimizer}'s state"
        params.require(fits, "offload", f"{problem}; set optimizer to adamw, or offload to none")
        return self

    @property
    def total(self) -> float:
        """All loss weights; 0 trains nothing."""
        pairs = self.w_vag + self.w_dpo + self.w_sft + self.w_anchor
        return pairs + self.w_attn + self.w_keep

    @property
    def loss_mix(self) -> dict[LossType, float]:
        """The forms of same-image DPO and the weight of each, one form alone weighing 1."""
        return {self.loss_type: 1.0} if isinstance(self.loss_type, str) else self.loss_type

    # ---- how much at once ------------------------------------------------------------------------

    @property
    def left_open(self) -> tuple[str, ...]:
        """The keys that depend on the memory of whoever trains: `adapt/inspect/settled.py`."""
        keys = ("accumulation", "gradient_checkpointing")
        return tuple(key for key in keys if getattr(self, key) == "auto")

    @property
    def passes(self) -> int:
        """Forwards, each with its backward, of each kind that one process makes in a step; 1 as
        long as that is open.
        """
        return 1 if self.accumulation == "auto" else self.accumulation

    @property
    def checkpointing(self) -> bool:
        """Whether activations are computed again for the backward; not as long as that is open."""
        return self.gradient_checkpointing is True

    # ---- who trains ------------------------------------------------------------------------------

    @property
    def worlds(self) -> tuple[int, ...]:
        """How many processes may train side by side, in ascending order.

        The Ray workers, or this process. Of a range all numbers that have equally many rows of a
        step each, up to the largest one that can divide them into `passes`.
        """
        if isinstance(self.workers, int):
            return (max(self.workers, 1),)
        most = max(self._whole(self._rows), default=0)
        return tuple(n for n in self._counts if n <= most and self._rows % n == 0)

    @property
    def processes(self) -> int:
        """Processes that train side by side: of a range the most that there may be."""
        return self.worlds[-1]

    @property
    def parts(self) -> int:
        """How many forward and backward passes of all processes share the rows of a step."""
        return self.processes * self.passes

    @property
    def pass_pairs(self) -> int:
        """Pairs that one process takes in one forward and backward pass."""
        return self.batch_pairs // self.parts

    def at(self, processes: int) -> Self:
        """These settings for so many of the workers that there may be, one of `worlds`.

        A step has the same rows, and a pass no more of them: fewer workers make more passes, but
        where these are left open.
        """
        if isinstance(self.workers, int):
            return self
        assert processes in self.worlds, f"{processes} workers are not among {self.worlds}"
        if self.accumulation == "auto":
            return self.model_copy(update={"workers": processes})
        own = self._rows // processes
        passes = range(max(1, self.parts // processes), own + 1)
        pairs = self.batch_pairs // processes
        found = next(n for n in passes if own % n == 0 and pairs <= n * self.pass_pairs)
        return self.model_copy(update={"workers": processes, "accumulation": found})

    @property
    def _ends(self) -> tuple[int, ...]:
        return (max(self.workers, 1),) if isinstance(self.workers, int) else self.workers

    @property
    def _counts(self) -> range:
        """All numbers of processes that are asked for; more than there are pairs have no work."""
        first, last = self._ends[0], self._ends[-1]
        return range(first, min(last, max(first, self.batch_pairs)) + 1 if last >= first else first)

    @property
    def _rows(self) -> int:
        """What each process has a whole share of, and each of its passes too."""
        return math.gcd(self.batch_pairs, self.keep_rows) if self.w_keep else self.batch_pairs

    def _whole(self, rows: int) -> list[int]:
        """The numbers of processes that divide `rows` into `passes`."""
        return [n for n in self._counts if rows % (n * self.passes) == 0]
