"""Whether configuration, model and pairs fit together, before anything is computed or started.

Reads the model's configuration and processor, and the pair file; no weights. What the model takes
of one row is in `adapt/preference/taken.py`.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from transformers import AutoConfig

from adapt.attention.layout import unknown
from adapt.attention.settings import beyond
from adapt.data.tables import read_split
from adapt.models.load import load_processor
from adapt.models.prompts import located_tokens, prompt_version
from adapt.pairs.table import REMAKE, Pair, read_ids, read_origin, read_pairs
from adapt.params import InputError, require
from adapt.preference.settings import Config
from adapt.preference.taken import Seen, at, check_length, check_pictures, lengths_of, seen_of

AT_ONCE = 256  # rows whose texts are made tokens together


def check(config: Config, base: Path, pairs: Path, plain: Path | None = None) -> None:
    """Raises InputError with the key, or the file and row, that does not fit the rest.

    `plain` is the file of plain rows, None where none are rehearsed.
    """
    rows, processor = read_pairs(pairs), load_processor(base)
    read_ids(pairs)
    model_config = AutoConfig.from_pretrained(str(base), trust_remote_code=False)
    reason = unknown(model_config)
    if reason is not None:
        raise InputError(f"{base}: {reason}")
    # 1. The keys of the configuration.
    layers = model_config.get_text_config().num_hidden_layers
    missing = beyond(config.attn_layers, layers)
    problem = f"the model has layers 0 to {layers - 1}, got {list(config.attn_layers)}"
    require(not missing, "train.attn_layers", problem)
    problem = f"{config.batch_pairs} pairs a step, but {pairs} has {len(rows)} in all"
    require(config.batch_pairs <= len(rows), "train.batch_pairs", problem)
    # 2. The pairs were made for this model.
    _check_origin(model_config, processor, pairs)
    if config.span_weight != 1:
        _check_spans(processor, pairs, rows)
    # 3. Its prompts and answers are still what they were, and long enough.
    longest = check_rows(model_config, processor, pairs, rows)
    if config.w_attn > 0 and config.attn_target == "boxes":
        _check_places(processor, pairs, rows)
    elif config.w_attn > 0 and config.attn_target == "early":
        _check_late_tokens(config.anchor.anchor_tokens, longest)
    # 4. What is rehearsed is there, and is taken by the same model.
    if plain is not None:
        check_plain(config, model_config, processor, plain)


def check_plain(config: Config, model_config: Any, processor: Any, plain: Path) -> None:
    """That there are plain rows enough, which become tokens, few enough for the model."""
    rows = read_split(plain)
    problem = f"{config.keep_rows} rows a step, but {plain} has {len(rows)} in all"
    require(config.keep_rows <= len(rows), "train.keep_rows", problem)
    known = dict[object, Seen]()
    for start in range(0, len(rows), AT_ONCE):
        part = [*enumerate(rows[start : start + AT_ONCE], start + 1)]
        lengths = lengths_of(processor, plain, part, ("answer",))
        for (number, row), length in zip(part, lengths, strict=True):
            with at(f"{plain}: row {number} ({row.id})"):
                require(len(row.images) > 0, "images", "there are none")
                seen = seen_of(model_config, processor, row, row.images, length, known)
                check_length(model_config, length.prompt + seen.more + length.chosen)


def check_rows(model_config: Any, processor: Any, pairs: Path, rows: Sequence[Pair]) -> int:
    """That prompts and answers become tokens, and pictures the image tokens of the anchors.

    Returns how many tokens the longest chosen answer has behind what both answers begin with.
    Raises InputError with file and row.
    """
    longest, known = 0, dict[object, Seen]()
    for start in range(0, len(rows), AT_ONCE):
        part = [*enumerate(rows[start : start + AT_ONCE], start + 1)]
        lengths = lengths_of(processor, pairs, part)
        for (number, row), length in zip(part, lengths, strict=True):
            with at(f"{pairs}: row {number} ({row.id})"):
                check_pictures(model_config, processor, row, length, known)
        longest = max(longest, *(one.chosen - one.begun for one in lengths))
    return longest


def _check_origin(model_config: Any, processor: Any, pairs: Path) -> None:
    origin, kind = read_origin(pairs), model_config.model_type
    problem = f"made with a model of type {origin.model_type}, but the base is {kind}; {REMAKE}"
    require(origin.model_type == kind, str(pairs), problem)
    version = prompt_version(processor)
    problem = f"made with the chat template {origin.prompt}, but the base has {version}; {REMAKE}"
    require(origin.prompt == version, str(pairs), problem)


def _check_spans(processor: Any, pairs: Path, rows: Sequence[Pair]) -> None:
    """A weight of spans needs some, and a tokenizer that says where its tokens come from."""
    with at("train.span_weight"):
        located_tokens(processor, ["a"], (processor.tokenizer.pad_token_id,))
    problem = f"no answer in {pairs} has words that decide; set it to 1"
    has_spans = any(row.chosen_spans or row.rejected_spans for row in rows)
    require(has_spans, "train.span_weight", problem)


def _check_late_tokens(anchor_tokens: int, longest: int) -> None:
    """Attention supervision looks at tokens after the first K."""
    fact = f"the longest chosen answer has {longest} to train (or set train.w_attn to 0)"
    problem = f"{anchor_tokens} tokens leave nothing to supervise: {fact}"
    require(longest > anchor_tokens, "anchor.anchor_tokens", problem)


def _check_places(processor: Any, pairs: Path, rows: Sequence[Pair]) -> None:
    """Supervision by boxes looks at mentions of things whose boxes are known, behind the prefix."""
    with at("train.attn_target"):
        located_tokens(processor, ["a"], (processor.tokenizer.pad_token_id,))
    problem = f"boxes, but no chosen answer in {pairs} names a thing whose box is known"
    advice = "give the training data objects with boxes, or set it to early or anchor"
    is_placed = any(
        place.boxes and place.start >= len(row.prefix) for row in rows for place in row.places
    )
    require(is_placed, "train.attn_target", f"{problem}; {advice}")
