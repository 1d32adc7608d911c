"""Preference batches with guided images: TRL's collator, plus v+ for the chosen and v- for the rejected half.

Enhanced and noisy images keep the size, so the token grid stays and replacing the pixel values is enough. The noise of
a pair depends on its id alone: a resumed run sees what an uninterrupted one would have seen.

Shapes: B pairs, N image tokens, C channels, X x Y pixels.
"""

import dataclasses
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from trl.trainer.dpo_trainer import DataCollatorForVisionPreference

from adapt.attention.anchor import enhanced, noise_injected, pixel_mask

GUIDED = "guided_pixel_values"
ANCHOR = "anchor"


@dataclasses.dataclass
class GuidedCollator(DataCollatorForVisionPreference):
    """Adds `guided_pixel_values` [2B, C, X, Y] (v+ first, then v-) and `anchor` [B, N] to TRL's batch.

    Args:
        noise: share of noise power in v-.
        guide: False leaves `guided_pixel_values` equal to the plain pixel values (VAG-DPO is then DPO).
    """

    noise: float = dataclasses.field(kw_only=True)
    guide: bool = dataclasses.field(kw_only=True, default=True)

    def torch_call(self, examples: list[dict[str, Any]]) -> dict[str, Any]:
        """Collate `examples` (image, prompt, chosen, rejected, id, anchor, grid)."""
        own = [{key: e[key] for key in ("id", "anchor", "grid")} for e in examples]
        batch = super().torch_call([{k: e[k] for k in ("image", "prompt", "chosen", "rejected")} for e in examples])
        pixels_BCXY = batch["pixel_values"][: len(own)]
        batch[ANCHOR] = torch.tensor([e["anchor"] for e in own], dtype=torch.float32)
        batch[GUIDED] = torch.cat(self._guided(pixels_BCXY, own, batch[ANCHOR]) if self.guide else [pixels_BCXY] * 2)
        return batch

    def _guided(self, pixels_BCXY: Tensor, own: Sequence[Mapping[str, Any]], anchor_BN: Tensor) -> list[Tensor]:
        grid = tuple(own[0]["grid"])
        assert all(tuple(e["grid"]) == grid for e in own), "one grid per batch"
        image_processor = self.processor.image_processor
        mean, std = torch.tensor(image_processor.image_mean), torch.tensor(image_processor.image_std)
        mask_B1XY = pixel_mask(anchor_BN, grid, pixels_BCXY.shape[-2:])
        noise = [_noise(e["id"], pixels_BCXY.shape[1:]) for e in own]
        return [
            enhanced(pixels_BCXY, mask_B1XY, (1 - mean) / std),
            noise_injected(pixels_BCXY, torch.stack(noise), self.noise),
        ]


def _noise(identity: str, shape: Sequence[int]) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(zlib.crc32(identity.encode())))
