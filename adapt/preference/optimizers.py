"""What makes the steps: AdamW, AdamW whose moments have 8 bits, or Adafactor; `train.optimizer`.

AdamW keeps two moments of every trained weight in float32, 8 bytes. In 8 bits (arXiv 2110.02861,
bitsandbytes) they take 2, with a scale for every 256; those of embeddings and of small tensors stay
in float32. Adafactor (arXiv 1804.04235) keeps the mean squares of a matrix's rows and of its
columns, and no first moment. transformers has all three. Rates are the configured ones: Adafactor's
own, which depend on the step and on the size of weights, are off. Where AdamW's moments live is
another question: adapt/preference/offloaded.py.
"""

import importlib.util
from typing import Any

from adapt.models.device import resolve
from adapt.params import InputError
from adapt.preference.settings import Config


def arguments(config: Config) -> dict[str, Any]:
    """What transformers has to be told; of AdamW nothing, it picks the fastest that is there."""
    return {} if config.optimizer == "adamw" else {"optim": config.optimizer}


def check(config: Config) -> None:
    """Raises InputError where the optimizer does not run here."""
    if config.optimizer != "adamw_8bit":
        return
    has_gpu = resolve(config.device).type == "cuda"
    if importlib.util.find_spec("bitsandbytes") is None or not has_gpu:
        missing = "the package bitsandbytes" if has_gpu else "a CUDA GPU"
        problem = f"moments in 8 bits need {missing}; set adamw or adafactor"
        raise InputError(f"train.optimizer: {problem}")
