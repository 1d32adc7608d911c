"""Preference batches with guided images: v+ for the chosen half, v- for the rejected one.

Enhanced and noisy images keep the size, so the token grid stays and replacing the pixel values is
enough. The noise of a pair depends on its id alone: a resumed run sees what an uninterrupted one
would have seen.

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

GUIDED = "guided_"
ANCHOR = "anchor"
IDS = "ids"
PASS = "pass"  # of a step: "plain" or "guided"; see `adapt/preference/trainer.py`
# TRL's names for reference log-probabilities that were computed before.
REFERENCE = ("ref_chosen_logps", "ref_rejected_logps")


@dataclasses.dataclass
class GuidedCollator(DataCollatorForVisionPreference):
    """TRL's batch, and what our terms need beside it.

    * `ids`: the rows' ids; `anchor` [B, N].
    * `guided_pixel_values` [2B, C, X, Y]: v+ of the chosen half, then v- of the rejected half; with
      `guide` alone.
    * reference log-probabilities [B] each, where the rows have them: `ref_chosen_logps`,
      `ref_rejected_logps`, and under the guided images `guided_ref_chosen_logps`,
      `guided_ref_rejected_logps`.

    Args:
        noise: share of noise power in v-.
        guide: whether to make guided images.
    """

    noise: float = dataclasses.field(kw_only=True)
    guide: bool = dataclasses.field(kw_only=True, default=True)

    def torch_call(self, examples: list[dict[str, Any]]) -> dict[str, Any]:
        """A batch of the dataset's rows, which may have reference log-probabilities."""
        names = ("image", "prompt", "chosen", "rejected")
        batch = super().torch_call([{name: e[name] for name in names} for e in examples])
        batch[IDS] = [e["id"] for e in examples]
        batch[ANCHOR] = torch.tensor([e["anchor"] for e in examples], dtype=torch.float32)
        if self.guide:
            pixels_BCXY = batch["pixel_values"][: len(examples)]
            guided = self._guided(pixels_BCXY, examples, batch[ANCHOR])
            batch[f"{GUIDED}pixel_values"] = torch.cat(guided)
        for name in (*REFERENCE, *(GUIDED + name for name in REFERENCE)):
            if name in examples[0]:
                batch[name] = torch.tensor([e[name] for e in examples], dtype=torch.float32)
        return batch

    def _guided(
        self, pixels_BCXY: Tensor, rows: Sequence[Mapping[str, Any]], anchor_BN: Tensor
    ) -> list[Tensor]:
        grid = tuple(rows[0]["grid"])
        assert all(tuple(row["grid"]) == grid for row in rows), "one grid per batch"
        processor = self.processor.image_processor
        mean_C, std_C = torch.tensor(processor.image_mean), torch.tensor(processor.image_std)
        white_C = (1 - mean_C) / std_C
        mask_B1XY = pixel_mask(anchor_BN, grid, pixels_BCXY.shape[-2:])
        noise_BCXY = torch.stack([_noise(row["id"], pixels_BCXY.shape[1:]) for row in rows])
        noisy_BCXY = noise_injected(pixels_BCXY, noise_BCXY, self.noise)
        return [enhanced(pixels_BCXY, mask_B1XY, white_C), noisy_BCXY]


def part(batch: Mapping[str, Any], guided: bool) -> dict[str, Any]:
    """What model and TRL's loss take of a batch: one set of images, and the reference under it.

    >>> part({"ids": ["a"], "pixel_values": 1, "guided_pixel_values": 2}, guided=True)
    {'pixel_values': 2}
    """
    inputs = {key: value for key, value in batch.items() if key not in (ANCHOR, IDS, PASS)}
    plain = {key: value for key, value in inputs.items() if not key.startswith(GUIDED)}
    if not guided:
        return plain
    return plain | {key.removeprefix(GUIDED): inputs[key] for key in inputs.keys() - plain.keys()}


def chosen_half(batch: Mapping[str, Any]) -> dict[str, Any]:
    """The chosen half of what `part` returns; all but the reference has chosen rows first."""
    return {key: value.chunk(2)[0] for key, value in batch.items() if key not in REFERENCE}


def _noise(identity: str, shape: Sequence[int]) -> Tensor:
    generator = torch.Generator().manual_seed(zlib.crc32(identity.encode()))
    return torch.randn(*shape, generator=generator)
