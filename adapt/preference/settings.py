"""Configuration of preference training: section `train` of params.yaml."""

import dataclasses

from adapt.attention.anchor import AnchorConfig
from adapt.params import require, shared

# The pairwise losses of TRL's `DPOConfig.loss_type` that need no further option ("exo_pair" does).
LOSS_TYPES = (
    "sigmoid",
    "sigmoid_norm",
    "hinge",
    "ipo",
    "robust",
    "nca_pair",
    "bco_pair",
    "sppo_hard",
    "aot",
    "aot_unpaired",
    "apo_zero",
    "apo_down",
    "discopop",
)
PRECISIONS = ("auto", "fp32", "bf16")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """Section `train`, with the shared `anchor` and `seed`."""

    workers: int
    max_failures: int
    batch_pairs: int
    accumulation: int
    steps: int
    learning_rate: float
    beta: float
    loss_type: str
    w_vag: float
    w_dpo: float
    w_sft: float
    w_attn: float
    attn_layers: tuple[int, ...]
    noise: float
    lora_rank: int
    precision: str
    gradient_checkpointing: bool
    checkpoint_every: int
    log_every: int
    anchor: AnchorConfig = shared()
    seed: int = shared()

    def __post_init__(self) -> None:
        for key in ("workers", "max_failures", "lora_rank", "w_vag", "w_dpo", "w_sft", "w_attn"):
            require(getattr(self, key) >= 0, key, f"must not be negative, got {getattr(self, key)}")
        for key in ("batch_pairs", "accumulation", "steps", "checkpoint_every", "log_every"):
            require(getattr(self, key) >= 1, key, f"must be at least 1, got {getattr(self, key)}")
        for key in ("learning_rate", "beta"):
            require(getattr(self, key) > 0, key, f"must be positive, got {getattr(self, key)}")
        require(0 <= self.noise <= 1, "noise", f"must lie in [0, 1], got {self.noise}")
        require(all(layer >= 0 for layer in self.attn_layers), "attn_layers", "layers count from 0")
        for key, known in (("loss_type", LOSS_TYPES), ("precision", PRECISIONS)):
            value = getattr(self, key)
            require(value in known, key, f"must be one of {', '.join(known)}, got {value}")
        is_used = self.loss_type == "sigmoid" or self.w_dpo > 0
        require(
            is_used,
            "loss_type",
            f"{self.loss_type} is the form of the same-image term, whose weight w_dpo is 0",
        )
        weights = self.w_vag + self.w_dpo + self.w_sft + self.w_attn
        require(
            weights > 0,
            "w_vag",
            "all loss weights (w_vag, w_dpo, w_sft, w_attn) are 0: nothing to train",
        )
        parts = max(self.workers, 1) * self.accumulation
        what = f"{self.batch_pairs} pairs do not divide into {self.accumulation} passes of {max(self.workers, 1)} workers"
        require(self.batch_pairs % parts == 0, "batch_pairs", what)

    @property
    def pass_pairs(self) -> int:
        """Pairs that one worker takes in one forward and backward pass."""
        return self.batch_pairs // (max(self.workers, 1) * self.accumulation)
