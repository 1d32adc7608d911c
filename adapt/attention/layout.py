"""Where the image is in the token sequence: columns of the image tokens and the patch grid, never by constants.

Shapes: B batch, S sequence, N image tokens (padded with -1).
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from adapt.params import InputError


def image_columns(input_ids_BS: Tensor, image_token_id: int) -> Tensor:
    """Positions of the image tokens of each sample, [B, N] in order, padded with -1 at the end.

    >>> image_columns(torch.tensor([[5, 9, 9, 1], [9, 1, 1, 1]]), image_token_id=9)
    tensor([[ 1,  2],
            [ 0, -1]])

    Raises InputError for a sample without an image: there is nothing to align attention with.
    """
    found_BS = input_ids_BS == image_token_id
    counts_B = found_BS.sum(1)
    if int(counts_B.min()) == 0:
        raise InputError(f"sample {int(counts_B.argmin())} of the batch has no image tokens (id {image_token_id})")
    order = torch.where(found_BS, torch.arange(found_BS.shape[1], device=found_BS.device), found_BS.shape[1])
    columns = order.sort(1).values[:, : int(counts_B.max())]
    return columns.masked_fill(columns == found_BS.shape[1], -1)


def patch_grid(config: Any, inputs: Mapping[str, Tensor], columns_BN: Tensor) -> tuple[int, int]:
    """(rows, columns) of the patch grid behind the image tokens of a batch.

    LLaVA-1.5's rule: one square-patch tower, image tokens in raster order, grid = image size / patch size. Raises
    InputError when the grid does not match the number of image tokens, as with families that merge or tile patches.
    """
    tower = getattr(config, "vision_config", None)
    size = getattr(tower, "patch_size", None)
    if not isinstance(size, int) or "pixel_values" not in inputs or inputs["pixel_values"].dim() != 4:
        raise InputError(f"model type {getattr(config, 'model_type', '?')}: its patch grid is not known yet")
    height, width = inputs["pixel_values"].shape[-2:]
    grid = (height // size, width // size)
    if grid[0] * grid[1] != columns_BN.shape[1]:
        raise InputError(
            f"model type {config.model_type}: {columns_BN.shape[1]} image tokens do not form the"
            f" {grid[0]} x {grid[1]} grid of its vision tower"
        )
    return grid
