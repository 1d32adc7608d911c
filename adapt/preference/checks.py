"""What can be known to be wrong before anything is computed or started: configuration, model and
pairs together.

Reads the model's configuration and processor, and the pair file; no weights.
"""

import io
from pathlib import Path
from typing import Any

from adapt.attention.layout import image_columns, patch_grid, unknown
from adapt.attention.settings import beyond
from adapt.models.load import load_processor
from adapt.params import InputError, require
from adapt.preference.pairs import Pair, read_pairs
from adapt.preference.settings import Config


def check(config: Config, base: Path, pairs: Path) -> None:
    """Raises InputError with the key, or the file and row, that does not fit the rest."""
    from transformers import AutoConfig

    rows, processor = read_pairs(pairs), load_processor(base)
    model_config = AutoConfig.from_pretrained(str(base), trust_remote_code=False)
    reason = unknown(model_config)
    if reason is not None:
        raise InputError(f"{base}: {reason}")
    layers = model_config.get_text_config().num_hidden_layers
    missing = beyond(config.attn_layers, layers)
    what = f"the model has layers 0 to {layers - 1}, got {missing}"
    require(not missing, "train.attn_layers", what)
    what = f"{config.batch_pairs} pairs a step, but {pairs} has {len(rows)} in all"
    require(config.batch_pairs <= len(rows), "train.batch_pairs", what)
    if config.w_attn > 0:
        _check_length(config, processor, rows)
    if config.w_vag > 0 or config.w_attn > 0:
        _check_grids(model_config, processor, pairs, rows)


def _check_length(config: Config, processor: Any, rows: list[Pair]) -> None:
    """Attention supervision looks at tokens after the first K."""
    longest = max(
        len(processor.tokenizer(row.chosen, add_special_tokens=False).input_ids) for row in rows
    )
    what = f"{config.anchor.anchor_tokens} tokens leave nothing to supervise: the longest chosen answer has {longest}"
    require(
        longest > config.anchor.anchor_tokens,
        "anchor.anchor_tokens",
        f"{what} (or set train.w_attn to 0)",
    )


def _check_grids(model_config: Any, processor: Any, pairs: Path, rows: list[Pair]) -> None:
    """One grid for all rows, and the one on which the model sees an image of that size."""
    from PIL import Image

    seen: set[tuple[int, int]] = set()
    for number, row in enumerate(rows, 1):
        where = f"{pairs}: row {number} ({row.id}): grid"
        if row.grid != rows[0].grid:
            raise InputError(
                f"{where}: {row.grid}, but {rows[0].grid} in the first row; a batch takes one grid"
            )
        image = Image.open(io.BytesIO(row.image))  # reads the size; pixels where they are asked for
        if image.size not in seen:
            seen.add(image.size)
            found = _grid(model_config, processor, image.convert("RGB"), row.question)
            what = f"an anchor on {row.grid}, but the model sees this image on {found}; run the pairs stage again"
            require(found == row.grid, where, what)


def _grid(model_config: Any, processor: Any, image: Any, question: str) -> tuple[int, int]:
    turn = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": question}]}]
    text = processor.apply_chat_template(turn, add_generation_prompt=True, tokenize=False)
    inputs = processor(images=[image], text=[text], return_tensors="pt")
    return patch_grid(
        model_config, inputs, image_columns(inputs["input_ids"], model_config.image_token_id)
    )
