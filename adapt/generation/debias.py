"""Debias masks: where a model looks whatever the image. docs/method.md, section 2, M_debias.

Estimated once per model, image size and set of prompts, and kept for the life of the process.

Shapes: N image tokens.
"""

from collections.abc import Sequence
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from adapt.attention.anchor import by_grid, debias_mask
from adapt.attention.layout import Grid
from adapt.attention.settings import AnchorConfig
from adapt.generation.answer import Decoding, answer, first_maps
from adapt.models.identity import content_key
from adapt.models.prompts import prompt_inputs

KEPT = 64
_masks: dict[str, dict[Grid, Tensor]] = {}  # the latest KEPT, by what they depend on


def debias_masks(
    model: nn.Module,
    processor: Any,
    questions: Sequence[str],
    size: tuple[int, int],
    config: AnchorConfig,
    seed: int,
) -> dict[Grid, Tensor]:
    """A mask [rows * columns] for every grid that images of `size` (width, height) have.

    Asked again with the same weights, configuration and prompts, it answers from memory.
    """
    # 1. Images of uniform noise, under the questions in turn: no image supports any answer.
    generator = torch.Generator().manual_seed(seed)
    shape = (config.noise_images, size[1], size[0], 3)
    noise = torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)
    images = [[Image.fromarray(pixels.numpy())] for pixels in noise]
    prompts = [questions[i % len(questions)] for i in range(config.noise_images)]
    # 2. The key holds all that the masks depend on; one step of training changes it.
    K = config.anchor_tokens
    key = content_key(model, prompt_inputs(model, processor, images, prompts), K)
    if key not in _masks:
        # 3. The maps of the first K tokens, averaged over answers and layers, grid by grid.
        decoding = Decoding(anchor_tokens=K, max_new_tokens=K)
        answers = answer(model, processor, images, prompts, decoding)
        maps_BLN, patches = first_maps(answers, K), by_grid(answers.layout)
        _masks[key] = {p.grid: debias_mask(p.of(maps_BLN)) for p in patches}
        for oldest in list(_masks)[:-KEPT]:
            _masks.pop(oldest, None)
    return dict(_masks[key])
