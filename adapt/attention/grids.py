"""How each family of models lays the patches of a picture out as image tokens: one rule per family.

A rule reads the model's config and what the processor made, and says for every image of the batch,
in order, which grids its tokens form and which pixels each grid is made of; from the pixels
`adapt/attention/places.py` measures where the tokens lie in the picture. Rules were read from
transformers 5.23 (file named at each rule) and are proven against the models' own embeddings in
`tests/attention/test_families.py`, which also writes `docs/families.md`.

Shapes: B batch, S sequence.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any, Literal

import torch
from torch import Tensor

from adapt.params import InputError

Kind = Literal["whole", "tile"]
Grid = tuple[int, int]
JOINED = ()  # tiles that the model puts together and cuts to the shape of the picture


@dataclasses.dataclass(frozen=True)
class Part:
    """One grid of an image's tokens, row by row, and the tokens around it that stand for no patch.

    `row_end` such tokens follow every row, `after` follow the grid. `pixels` says what the grid is
    made of: an index of `pixel_values` that leaves [C, X, Y], with slices of X and Y where a batch
    is padded; a range of its rows where these are patches, in the order of the grid's tokens;
    JOINED; or None where `pixel_values` has one picture for each part of the batch, in the order of
    the parts.
    """

    kind: Kind
    grid: Grid
    row_end: int = 0
    after: int = 0
    pixels: tuple[int | slice, ...] | range | None = None

    def length(self) -> int:
        """Image tokens of this part.

        >>> Part("whole", (2, 3), row_end=1).length()
        8
        """
        return self.grid[0] * (self.grid[1] + self.row_end) + self.after

    def patches(self) -> list[int]:
        """Where the grid's tokens are among those of the part.

        >>> Part("whole", (2, 3), row_end=1).patches()
        [0, 1, 2, 4, 5, 6]
        """
        rows, columns = self.grid
        return [r * (columns + self.row_end) + c for r in range(rows) for c in range(columns)]


Inputs = Mapping[str, Tensor]
Image = list[Part]
Rule = Callable[[Any, Inputs], list[Image]]


def patch_size(config: Any) -> Grid:
    """Height and width of the vision tower's patches, in pixels; configs give both, or a side."""
    size = config.vision_config.patch_size
    return (size, size) if isinstance(size, int) else (size[0], size[1])


def _tower_grid(config: Any, inputs: Inputs, merge: int = 1) -> Grid:
    """Patches of a picture in `pixel_values` [..., C, X, Y]; `merge` x `merge` of them a token."""
    height, width = inputs["pixel_values"].shape[-2:]
    side = patch_size(config)
    return height // side[0] // merge, width // side[1] // merge


def _one_grid(config: Any, inputs: Inputs) -> list[Image]:
    """picture size / patch size; the processor resizes or crops every picture to one size"""
    # llava/modeling_llava.py, paligemma/modeling_paligemma.py: pixel_values [images, C, X, Y]
    return [[Part("whole", _tower_grid(config, inputs))] for _ in inputs["pixel_values"]]


def _pixtral(config: Any, inputs: Inputs) -> list[Image]:
    """`image_sizes` / patch size / `spatial_merge_size`: as the picture's own shape gives"""
    # mistral3/modeling_mistral3.py: Mistral3PatchMerger; a LLaVA merges nothing.
    # pixtral/processing_pixtral.py: breaks and the end are tokens of their own.
    # pixtral/image_processing_pixtral.py: pictures are padded to the largest of the batch, at the
    # right and below.
    merge = getattr(config, "spatial_merge_size", 1)
    high, wide = (side * merge for side in patch_size(config))
    return [
        [Part("whole", (h // high, w // wide), pixels=(n, slice(None), slice(h), slice(w)))]
        for n, (h, w) in enumerate(inputs["image_sizes"].tolist())
    ]


def _llava(config: Any, inputs: Inputs) -> list[Image]:
    """picture size / patch size; all pictures of one size, or with Pixtral's tower each its own"""
    return (_pixtral if "image_sizes" in inputs else _one_grid)(config, inputs)


def _gemma3(config: Any, inputs: Inputs) -> list[Image]:
    """square of `mm_tokens_per_image` averaged tokens for every picture or pan-and-scan crop"""
    # gemma3/modeling_gemma3.py: Gemma3MultiModalProjector. The processor does not pass on which
    # picture a crop is of, so a crop is an image of its own here.
    side = math.isqrt(config.mm_tokens_per_image)
    return [[Part("whole", (side, side))] for _ in inputs["pixel_values"]]


def _qwen_vl(config: Any, inputs: Inputs) -> list[Image]:
    """`image_grid_thw` / `spatial_merge_size`: as the picture's own size and shape give"""
    # qwen2_vl/processing_qwen2_vl.py, qwen2_vl/image_processing_qwen2_vl.py; Qwen2.5-VL, Qwen3-VL
    # The patches of all pictures are rows of one table, those that make a token side by side.
    merge, sizes = config.vision_config.spatial_merge_size, inputs["image_grid_thw"].tolist()
    images: list[Image] = []
    first = 0
    for frames, h, w in sizes:
        rows = [range(first + t * h * w, first + (t + 1) * h * w) for t in range(frames)]
        images.append([Part("whole", (h // merge, w // merge), pixels=one) for one in rows])
        first += frames * h * w
    return images


def _fine_grid(config: Any, size: Sequence[int]) -> Grid:
    """Patches of the tiled picture, put together and cut to the picture's own shape."""
    from transformers.models.llava_next import modeling_llava_next as llava

    # 1. How many tiles the processor has cut the picture into.
    tower, shapes = config.vision_config, config.image_grid_pinpoints
    tiles = llava.get_anyres_image_grid_shape(tuple(size), shapes, tower.image_size)
    # 2. Their patches in one grid, less the border that padding to that shape has added. The tensor
    # has a shape and no memory.
    side = tower.image_size // tower.patch_size
    features = torch.empty(1, tiles[0] * side, tiles[1] * side, device="meta")
    _, rows, columns = llava.unpad_image(features, tuple(size)).shape
    return rows, columns


def _llava_next(config: Any, inputs: Inputs) -> list[Image]:
    """the whole picture, then its tiles joined and cut to its shape, a separator after each row"""
    # llava_next/modeling_llava_next.py: pack_image_features
    coarse = _tower_grid(config, inputs)
    fine = [_fine_grid(config, size) for size in inputs["image_sizes"].tolist()]
    # The first of a picture's tiles is the whole picture.
    return [
        [Part("whole", coarse, pixels=(n, 0)), Part("whole", grid, row_end=1, pixels=JOINED)]
        for n, grid in enumerate(fine)
    ]


def _llava_onevision(config: Any, inputs: Inputs) -> list[Image]:
    """as LLaVA-NeXT, shrunk to `anyres_max` tiles; several pictures in a prompt are not tiled"""
    # llava_onevision/modeling_llava_onevision.py: get_image_features, pack_image_features
    coarse, sizes = _tower_grid(config, inputs), inputs["image_sizes"].tolist()
    # 1. A picture that shares its prompt with others is not tiled; one separator follows it.
    together = inputs["batch_num_images"].tolist() if "batch_num_images" in inputs else None
    counts = [1] * len(sizes) if together is None else [n for n in together for _ in range(n)]
    most = int(config.vision_aspect_ratio.removeprefix("anyres_max_"))
    images = []
    for n, (size, count) in enumerate(zip(sizes, counts, strict=True)):
        if count > 1:
            images.append([Part("whole", coarse, after=1, pixels=(n, 0))])
            continue
        # 2. The joined tiles are interpolated down, both sides alike, to about `anyres_max` tiles.
        fine = _fine_grid(config, size)
        ratio = math.sqrt(fine[0] * fine[1] / (most * coarse[0] ** 2))
        if ratio > 1.1:
            fine = int(fine[0] // ratio), int(fine[1] // ratio)
        whole = Part("whole", coarse, pixels=(n, 0))
        images.append([whole, Part("whole", fine, row_end=1, pixels=JOINED)])
    return images


def _runs(ids: list[int], image_id: int) -> list[Grid]:
    """Where unbroken runs of image tokens begin and end.

    >>> _runs([7, 9, 9, 7, 9], image_id=9)
    [(1, 3), (4, 5)]
    """
    is_image = [False, *(token == image_id for token in ids), False]
    edges = [i for i, (before, here) in enumerate(pairwise(is_image)) if before != here]
    return list(zip(edges[::2], edges[1::2], strict=True))


def _internvl(config: Any, inputs: Inputs) -> list[Image]:
    """square tiles, 2 x 2 patches to a token, then the whole picture; a small one is not tiled"""
    # internvl/processing_internvl.py: one run of image tokens between <img> and </img> per picture.
    # got_ocr2/image_processing_got_ocr2.py: crop_image_to_patches puts the thumbnail behind tiles,
    # so a run of n grids is n - 1 tiles and the whole picture.
    grid = _tower_grid(config, inputs, merge=round(1 / config.downsample_ratio))
    images = []
    for ids in inputs["input_ids"].tolist():
        for start, end in _runs(ids, config.image_token_id):
            tiles = (end - start) // (grid[0] * grid[1]) - 1
            images.append([Part("tile", grid)] * tiles + [Part("whole", grid)])
    return images


def _idefics3(config: Any, inputs: Inputs) -> list[Image]:
    """square tiles, `scale_factor`^2 patches to a token, then the whole picture, tags between"""
    # idefics3/processing_idefics3.py: replace_image_token. Every run of image tokens follows
    # <fake_token_around_image> and a tag, of one token or of several; the last run of a sample is a
    # whole picture, and each of them ends an image.
    grid = _tower_grid(config, inputs, merge=config.scale_factor)
    images: list[Image] = []
    for sample, ids in enumerate(inputs["input_ids"].tolist()):
        runs = _runs(ids, config.image_token_id)
        # 1. The token behind the last run is that fence, whatever its id.
        fence = ids[runs[-1][1]] if runs and runs[-1][1] < len(ids) else None
        # 2. What stands between the fence and a run is its tag.
        starts = [start for start, _ in runs]
        fences = [next((i for i in range(s, -1, -1) if ids[i] == fence), 0) for s in starts]
        tags = [ids[opening:start] for opening, start in zip(fences, starts, strict=True)]
        # 3. Runs with the tag of the last one are whole pictures, the others tiles before them.
        tiles: Image = []
        for n, tag in enumerate(tags):
            if tag == tags[-1]:
                images.append([*tiles, Part("whole", grid, pixels=(sample, n))])
                tiles = []
            else:
                tiles.append(Part("tile", grid, pixels=(sample, n)))
    return images


@dataclasses.dataclass(frozen=True)
class Family:
    """A family's name for people and its rule, whose docstring says it in words."""

    name: str
    rule: Rule


FAMILIES: dict[str, Family] = {
    "llava": Family("LLaVA-1.5, Pixtral", _llava),
    "llava_next": Family("LLaVA-NeXT", _llava_next),
    "llava_onevision": Family("LLaVA-OneVision", _llava_onevision),
    "qwen2_vl": Family("Qwen2-VL", _qwen_vl),
    "qwen2_5_vl": Family("Qwen2.5-VL", _qwen_vl),
    "qwen3_vl": Family("Qwen3-VL", _qwen_vl),
    "glm4v": Family("GLM-4.1V", _qwen_vl),
    "mistral3": Family("Mistral Small 3", _pixtral),
    "idefics3": Family("Idefics3", _idefics3),
    "smolvlm": Family("SmolVLM", _idefics3),
    "internvl": Family("InternVL", _internvl),
    "gemma3": Family("Gemma 3", _gemma3),
    "paligemma": Family("PaliGemma", _one_grid),
}


def images_of(config: Any, inputs: Inputs) -> list[Image]:
    """The parts of every image of the batch, by the rule of the model's family.

    Raises InputError for an unknown family, or when the processor's outputs lack what it reads.
    """
    kind = config.model_type
    if kind not in FAMILIES:
        known = f"known: {', '.join(FAMILIES)}"
        raise InputError(f"model type {kind}: its patch grid is not known; {known}")
    family = FAMILIES[kind]
    try:
        return family.rule(config, inputs)
    except KeyError as missing:
        raise InputError(f"{family.name}: the batch has no {missing} from the processor") from None
