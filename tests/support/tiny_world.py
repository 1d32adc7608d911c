"""A random tiny model and pictures for tests: no training, no files."""

from functools import cache
from typing import Any

import numpy as np
from PIL import Image

from adapt.data.settings import ScenesConfig
from adapt.models.tiny import Shape, build_model, build_processor, build_tokenizer

SHAPE = Shape(width=32, vision_layers=1, text_layers=3, heads=4, patch_size=8, image_size=32)
QUESTIONS = ("describe the picture.", "is there a red car?")
ANSWERS = ("a red car, a blue house and a green tree.", "no, there is no car.")


@cache
def processor() -> Any:
    """LLaVA processor over the words of QUESTIONS and ANSWERS."""
    return build_processor(build_tokenizer([*QUESTIONS, *ANSWERS]), SHAPE)


def model(seed: int = 0) -> Any:
    """A tiny LLaVA in eval mode; random weights, scaled up so that attention is not uniform."""
    tiny = build_model(processor().tokenizer, SHAPE, seed).eval()
    for name, parameter in tiny.named_parameters():
        if "q_proj" in name or "k_proj" in name or "embed_tokens" in name:
            parameter.data.mul_(8.0)
    return tiny


def picture(seed: int = 0) -> Image.Image:
    """A picture of noise."""
    shape, rng = (SHAPE.image_size, SHAPE.image_size, 3), np.random.default_rng(seed)
    return Image.fromarray(rng.integers(0, 256, shape, dtype=np.uint8))


def scenes(*, train: int = 1, test: int = 1, size: int = 48, noise: float = 0.6) -> ScenesConfig:
    """A drawn world of few pictures, and one to validate on."""
    return ScenesConfig(
        difficulty="default",
        train_images=train,
        validation_images=1,
        test_images=test,
        image_size=size,
        caption_noise=noise,
    )
