"""A random tiny model and pictures for tests of the attention, preference and model code: no
training, no files.
"""

from functools import cache
from typing import Any

import numpy as np
from PIL import Image

from adapt.models.tiny import Shape, build_model, build_processor, build_tokenizer

SHAPE = Shape(width=32, vision_layers=1, text_layers=3, heads=4, patch_size=8, image_size=32)
QUESTIONS = ("describe the picture.", "is there a red car?")
ANSWERS = ("a red car, a blue house and a green tree.", "no, there is no car.")


@cache
def processor() -> Any:
    """LLaVA processor over the words of QUESTIONS and ANSWERS."""
    return build_processor(build_tokenizer([*QUESTIONS, *ANSWERS]), SHAPE)


def model(seed: int = 0) -> Any:
    """A tiny LLaVA with random weights, in eval mode; weights are scaled up so that attention is
    far from uniform.
    """
    tiny = build_model(processor().tokenizer, SHAPE, seed).eval()
    for name, parameter in tiny.named_parameters():
        if "q_proj" in name or "k_proj" in name or "embed_tokens" in name:
            parameter.data.mul_(8.0)
    return tiny


def picture(seed: int = 0) -> Image.Image:
    """A picture of noise."""
    edge = SHAPE.image_size
    return Image.fromarray(
        np.random.default_rng(seed).integers(0, 256, (edge, edge, 3), dtype=np.uint8)
    )
