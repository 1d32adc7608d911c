"""Whether configuration, model and pairs fit together, before anything is computed or started.

Reads the model's configuration and processor, and the pair file; no weights. What the model takes
of one row is in `adapt/preference/taken.py`, how all rows are read in `adapt/preference/survey.py`.
"""

from pathlib import Path
from typing import Any

from transformers import AutoConfig

from adapt.attention.layout import unknown
from adapt.attention.settings import beyond
from adapt.data.tables import read_split
from adapt.models.load import load_processor
from adapt.models.prompts import located_tokens, prompt_version
from adapt.pairs.table import REMAKE, read_ids, read_origin, read_pairs
from adapt.params import InputError, require
from adapt.preference.settings import Config
from adapt.preference.survey import AT_ONCE, Facts, FactsCache, Seer, survey
from adapt.preference.taken import Seen, at, check_length, lengths_of, seen_of


def check(
    config: Config,
    base: Path,
    pairs: Path,
    plain: Path | None = None,
    cache: FactsCache | None = None,
) -> Facts:
    """Raises InputError with the key, or the file and row, that does not fit the rest.

    Returns what was found of all rows; of plain ones what their prompts and answers take. `plain`
    is the file of plain rows, None where none are rehearsed; `cache` is where that is kept which
    takes reading all pairs.
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
    is_boxed = config.w_attn > 0 and config.attn_target == "boxes"
    for key, is_needed in (("span_weight", config.span_weight != 1), ("attn_target", is_boxed)):
        if is_needed:
            with at(f"train.{key}"):
                located_tokens(processor, ["a"], (processor.tokenizer.pad_token_id,))
    # 3. Its prompts and answers are still what they were, and have what the terms ask for.
    seer = Seer(base=base, config=model_config, processor=processor)
    facts = survey(seer, pairs, rows, cache)
    _check_facts(config, pairs, facts)
    # 4. What is rehearsed is there, and is taken by the same model.
    return facts if plain is None else facts | check_plain(config, model_config, processor, plain)


def check_plain(config: Config, model_config: Any, processor: Any, plain: Path) -> Facts:
    """That there are plain rows enough, which become tokens, few enough for the model.

    Returns what their prompts and answers take.
    """
    rows, found = read_split(plain), Facts()
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
                prompt = length.prompt + seen.more
                check_length(model_config, prompt + length.chosen)
            found |= Facts(
                prompt=prompt, answer=length.chosen, tokens=seen.tokens, sizes=seen.sizes
            )
    return found


def _check_origin(model_config: Any, processor: Any, pairs: Path) -> None:
    origin, kind = read_origin(pairs), model_config.model_type
    problem = f"made with a model of type {origin.model_type}, but the base is {kind}; {REMAKE}"
    require(origin.model_type == kind, str(pairs), problem)
    version = prompt_version(processor)
    problem = f"made with the chat template {origin.prompt}, but the base has {version}; {REMAKE}"
    require(origin.prompt == version, str(pairs), problem)


def _check_facts(config: Config, pairs: Path, facts: Facts) -> None:
    """That the rows together have what weighted spans and attention supervision look at."""
    problem = f"no answer in {pairs} has words that decide; set it to 1"
    require(config.span_weight == 1 or facts.spanned, "train.span_weight", problem)
    if config.w_attn > 0 and config.attn_target == "boxes":
        problem = f"boxes, but no chosen answer in {pairs} names a thing whose box is known"
        advice = "give the training data objects with boxes, or set it to early or anchor"
        require(facts.placed, "train.attn_target", f"{problem}; {advice}")
    elif config.w_attn > 0 and config.attn_target == "early":
        anchor_tokens = config.anchor.anchor_tokens  # it looks at tokens after these
        fact = f"the longest chosen answer has {facts.longest} to train"
        problem = f"{anchor_tokens} tokens leave nothing to supervise: {fact}"
        advice = "(or set train.w_attn to 0)"
        is_late = facts.longest > anchor_tokens
        require(is_late, "anchor.anchor_tokens", f"{problem} {advice}")
