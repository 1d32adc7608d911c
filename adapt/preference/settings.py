"""Configuration of preference training: section `train` of params.yaml."""

import dataclasses

from adapt.attention.anchor import AnchorConfig
from adapt.params import require, shared


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """Section `train`, with the shared `anchor` and `seed`."""

    workers: int
    max_failures: int
    batch_pairs: int
    steps: int
    learning_rate: float
    beta: float
    w_vag: float
    w_dpo: float
    w_sft: float
    w_attn: float
    attn_layers: tuple[int, ...]
    noise: float
    lora_rank: int
    checkpoint_every: int
    log_every: int
    anchor: AnchorConfig = shared()
    seed: int = shared()

    def __post_init__(self) -> None:
        for key in ("workers", "max_failures", "lora_rank", "w_vag", "w_dpo", "w_sft", "w_attn"):
            require(getattr(self, key) >= 0, key, f"must not be negative, got {getattr(self, key)}")
        for key in ("batch_pairs", "steps", "checkpoint_every", "log_every"):
            require(getattr(self, key) >= 1, key, f"must be at least 1, got {getattr(self, key)}")
        for key in ("learning_rate", "beta"):
            require(getattr(self, key) > 0, key, f"must be positive, got {getattr(self, key)}")
        require(0 <= self.noise <= 1, "noise", f"must lie in [0, 1], got {self.noise}")
        require(all(layer >= 0 for layer in self.attn_layers), "attn_layers", "layers count from 0")
        weights = self.w_vag + self.w_dpo + self.w_sft + self.w_attn
        require(weights > 0, "w_vag", "all loss weights (w_vag, w_dpo, w_sft, w_attn) are 0: nothing to train")
        split = self.batch_pairs % max(self.workers, 1) == 0
        require(split, "batch_pairs", f"{self.batch_pairs} pairs do not divide among {self.workers} workers")
