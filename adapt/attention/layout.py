"""Where the images are in the token sequence, and which patch every image token stands for.

Nothing here is a constant of a checkpoint: positions come from the token ids, grids from the
model's config and the processor's outputs by the rule of the model's family
(`adapt/attention/grids.py`).

Shapes: B batch, S sequence, N image tokens (padded with -1).
"""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from adapt.attention.capture import decoder_of
from adapt.attention.grids import FAMILIES, Grid, Image, Kind, images_of
from adapt.params import InputError


@dataclasses.dataclass(frozen=True)
class View:
    """One grid of patches as the language model sees it: a whole image, or one tile of it.

    The grid lies over what the vision tower sees: where a processor crops or pads, that is not the
    whole file; `adapt/attention/places.py` measures where it lies. `image` counts the images of the
    sample from 0; `columns` are positions in the sample's sequence, row by row, and `slots` the
    same patches counted among the sample's image tokens.
    """

    sample: int
    image: int
    kind: Kind
    grid: Grid
    columns: tuple[int, ...]
    slots: tuple[int, ...] = ()


@dataclasses.dataclass(frozen=True)
class Layout:
    """All image tokens of a batch, and the grids among them; separators belong to no view."""

    columns_BN: Tensor
    views: tuple[View, ...]

    @property
    def counts_B(self) -> Tensor:
        """How many image tokens each sample has, separators included."""
        return (self.columns_BN >= 0).sum(1)

    def of(self, sample: int) -> tuple[View, ...]:
        """The views of one sample, in the order of its tokens."""
        return tuple(view for view in self.views if view.sample == sample)


def image_columns(input_ids_BS: Tensor, image_token_id: int) -> Tensor:
    """Positions of the image tokens of each sample, [B, N] in order, padded with -1 at the end.

    >>> image_columns(torch.tensor([[5, 9, 9, 1], [9, 1, 1, 1]]), image_token_id=9)
    tensor([[ 1,  2],
            [ 0, -1]])

    Raises InputError for a sample without an image: there is nothing to align attention with.
    """
    is_image_BS, S = input_ids_BS == image_token_id, input_ids_BS.shape[1]
    counts_B = is_image_BS.sum(1)
    if int(counts_B.min()) == 0:
        at = int(counts_B.argmin())
        raise InputError(f"sample {at} of the batch has no image tokens (id {image_token_id})")
    # Other positions become S, so that sorting puts them behind the image tokens.
    order_BS = torch.where(is_image_BS, torch.arange(S, device=is_image_BS.device), S)
    columns_BN = order_BS.sort(1).values[:, : int(counts_B.max())]
    return columns_BN.masked_fill(columns_BN == S, -1)


def layout_of(model: Any, inputs: Mapping[str, Tensor]) -> Layout:
    """Positions and patch grids of the images of a batch, the `inputs` that the processor made.

    The model, of transformers, may be inside a DDP or PEFT wrapper; its weights are not read.
    Raises InputError when it cannot be aligned, when a sample has no image, or when the image
    tokens are not those that the rule of the family expects.
    """
    if reason := unsupported(model):
        raise InputError(reason)
    return layout_by(_config(model), inputs)


def layout_by(config: Any, inputs: Mapping[str, Tensor]) -> Layout:
    """`layout_of` from the configuration alone, of a model for which `unknown` has no reason."""
    columns_BN = image_columns(inputs["input_ids"], config.image_token_id)
    return Layout(columns_BN, tuple(_views(columns_BN, images_of(config, inputs))))


def _config(model: Any) -> Any:
    return getattr(model, "module", model).config


def _views(columns_BN: Tensor, images: list[Image]) -> Iterator[View]:
    """Deal the images, which are in the order of the samples, out to each sample's image tokens."""
    dealt = 0
    for sample, padded in enumerate(columns_BN.tolist()):
        columns = [column for column in padded if column >= 0]
        first, used = dealt, 0
        # 1. The sample takes images until its tokens are used up.
        while used < len(columns) and dealt < len(images):
            for part in images[dealt]:
                # 2. A part's patches are a view; its separators are passed over, and so is a grid
                # that a very thin picture has left no row.
                slots, used = tuple(used + i for i in part.patches()), used + part.length()
                if slots and used <= len(columns):
                    patches = tuple(columns[i] for i in slots)
                    yield View(sample, dealt - first, part.kind, part.grid, patches, slots)
            dealt += 1
        # 3. The last image must end with the last token: else the rule does not fit the model.
        if used != len(columns):
            _refuse(sample, len(columns), images[first:dealt])
    if dealt < len(images):
        raise InputError(f"the batch has {len(images)} images, but image tokens for {dealt} only")


def _refuse(sample: int, tokens: int, images: list[Image]) -> None:
    grids = ", ".join(f"{part.grid[0]} x {part.grid[1]}" for image in images for part in image)
    form = f"the {grids} grid" if sum(map(len, images)) == 1 else f"the grids {grids or '(none)'}"
    start = f"sample {sample} of the batch: {tokens} image tokens"
    raise InputError(f"{start} do not form {form} of its images")


def unsupported(model: Any) -> str | None:
    """Why the model's attention cannot be aligned with its images; None when it can."""
    config = _config(model)
    reason = unknown(config)
    if reason is None and not decoder_of(model)._supports_attention_backend:
        reason = "its decoder does not call transformers' attention interface"
        return f"model type {config.model_type}: {reason}"
    return reason


def unknown(config: Any) -> str | None:
    """Why a model of this configuration has no image tokens with known places; None when it has."""
    reason = None
    if getattr(config.get_text_config(), "cross_attention_layers", None):
        how = "reads images through cross-attention layers"
        reason = f"{how}; no image token stands in its sequence"
    elif any(hasattr(config, name) for name in ("qformer_config", "perceiver_config")):
        how = "a Q-Former or resampler mixes the patches into queries"
        reason = f"{how}; no image token stands for a place"
    elif getattr(config, "image_token_id", None) is None:
        how = "its config names no image token (image_token_id)"
        reason = f"{how}, so images cannot be found in the sequence"
    elif config.model_type not in FAMILIES:
        known = ", ".join(FAMILIES)
        reason = f"its patch grid is not known; known: {known} (adapt/attention/grids.py)"
    return reason and f"model type {config.model_type}: {reason}"
