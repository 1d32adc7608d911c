"""Whether configuration, model and pairs fit together, before anything is computed or started.

Reads the model's configuration and processor, and the pair file; no weights.
"""

import io
from pathlib import Path
from typing import Any

import PIL.Image
from transformers import AutoConfig

from adapt.attention.layout import image_columns, patch_grid, unknown
from adapt.attention.settings import beyond
from adapt.models.load import load_processor
from adapt.models.prompts import chat_prompts
from adapt.params import InputError, require
from adapt.preference.pairs import Pair, read_pairs
from adapt.preference.settings import Config


def check(config: Config, base: Path, pairs: Path) -> None:
    """Raises InputError with the key, or the file and row, that does not fit the rest."""
    rows, processor = read_pairs(pairs), load_processor(base)
    model_config = AutoConfig.from_pretrained(str(base), trust_remote_code=False)
    reason = unknown(model_config)
    if reason is not None:
        raise InputError(f"{base}: {reason}")
    layers = model_config.get_text_config().num_hidden_layers
    missing = beyond(config.attn_layers, layers)
    problem = f"the model has layers 0 to {layers - 1}, got {list(config.attn_layers)}"
    require(not missing, "train.attn_layers", problem)
    problem = f"{config.batch_pairs} pairs a step, but {pairs} has {len(rows)} in all"
    require(config.batch_pairs <= len(rows), "train.batch_pairs", problem)
    if config.w_attn > 0:
        _check_length(config.anchor.anchor_tokens, processor, rows)
    if config.w_vag > 0 or config.w_attn > 0:
        _check_grids(model_config, processor, pairs, rows)


def _check_length(anchor_tokens: int, processor: Any, rows: list[Pair]) -> None:
    """Attention supervision looks at tokens after the first K."""
    chosen = [row.chosen for row in rows]
    longest = max(map(len, processor.tokenizer(chosen, add_special_tokens=False).input_ids))
    fact = f"the longest chosen answer has {longest} (or set train.w_attn to 0)"
    problem = f"{anchor_tokens} tokens leave nothing to supervise: {fact}"
    require(longest > anchor_tokens, "anchor.anchor_tokens", problem)


def _check_grids(model_config: Any, processor: Any, pairs: Path, rows: list[Pair]) -> None:
    """One grid for all rows, and the one on which the model sees an image of that size."""
    sizes: set[tuple[int, int]] = set()
    for number, row in enumerate(rows, 1):
        where = f"{pairs}: row {number} ({row.id}): grid"
        problem = f"{row.grid}, but {rows[0].grid} in the first row; a batch takes one grid"
        require(row.grid == rows[0].grid, where, problem)
        image = PIL.Image.open(
            io.BytesIO(row.images[0])
        )  # the size alone; its pixels when converted
        if image.size in sizes:
            continue
        sizes.add(image.size)
        grid = _grid(model_config, processor, image.convert("RGB"), row.question)
        problem = f"an anchor on {row.grid}, but the model sees this image on {grid}"
        require(grid == row.grid, where, f"{problem}; run the pairs stage again")


def _grid(model_config: Any, processor: Any, image: Any, question: str) -> tuple[int, int]:
    text = chat_prompts(processor, [question], [1])
    inputs = processor(images=[image], text=text, add_special_tokens=False, return_tensors="pt")
    columns_1N = image_columns(inputs["input_ids"], model_config.image_token_id)
    return patch_grid(model_config, inputs, columns_1N)
