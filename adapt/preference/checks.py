"""Whether configuration, model and pairs fit together, before anything is computed or started.

Reads the model's configuration and processor, and the pair file; no weights.
"""

import contextlib
import dataclasses
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from transformers import AutoConfig

from adapt.attention.layout import layout_by, unknown
from adapt.attention.settings import beyond
from adapt.data.pictures import PictureProblem, open_picture, shown_size
from adapt.models.load import load_processor
from adapt.models.prompts import answer_tokens, chat_prompts, encode, prompt_version
from adapt.params import InputError, require
from adapt.preference.pairs import REMAKE, Pair, PairView, read_ids, read_origin, read_pairs
from adapt.preference.settings import Config

AT_ONCE = 256  # rows whose texts are made tokens together
# What processors raise for a picture or a text that they are not made for.
UNTAKEN = (ValueError, TypeError, LookupError, ArithmeticError, RuntimeError)


def check(config: Config, base: Path, pairs: Path) -> None:
    """Raises InputError with the key, or the file and row, that does not fit the rest."""
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
    # 3. Its prompts and answers are still what they were, and long enough.
    longest = check_rows(model_config, processor, pairs, rows)
    if config.w_attn > 0:
        _check_late_tokens(config.anchor.anchor_tokens, longest)


def check_rows(model_config: Any, processor: Any, pairs: Path, rows: Sequence[Pair]) -> int:
    """That prompts and answers become tokens, and pictures the image tokens of the anchors.

    Returns how many tokens the longest chosen answer has. Raises InputError with file and row.
    """
    longest, known = 0, dict[object, _Seen]()
    for start in range(0, len(rows), AT_ONCE):
        part = [*enumerate(rows[start : start + AT_ONCE], start + 1)]
        lengths = _lengths(processor, pairs, part)
        for (number, row), length in zip(part, lengths, strict=True):
            with _at(f"{pairs}: row {number} ({row.id})"):
                _check_pictures(model_config, processor, row, length, known)
        longest = max(longest, *(one.chosen for one in lengths))
    return longest


def _check_origin(model_config: Any, processor: Any, pairs: Path) -> None:
    origin, kind = read_origin(pairs), model_config.model_type
    problem = f"made with a model of type {origin.model_type}, but the base is {kind}; {REMAKE}"
    require(origin.model_type == kind, str(pairs), problem)
    version = prompt_version(processor)
    problem = f"made with the chat template {origin.prompt}, but the base has {version}; {REMAKE}"
    require(origin.prompt == version, str(pairs), problem)


# ---- texts ---------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class _Lengths:
    """Tokens of a row; `prompt` with one sign for each picture, in place of its tokens."""

    prompt: int
    chosen: int
    rejected: int


def _lengths(processor: Any, path: Path, rows: Sequence[tuple[int, Pair]]) -> list[_Lengths]:
    """Of every numbered row; InputError with the row for a text that holds a special token."""
    try:
        return _counted(processor, [row for _, row in rows])
    except InputError:  # somewhere among them
        for number, row in rows:
            with _at(f"{path}: row {number} ({row.id})"):
                _counted(processor, [row])
        raise


def _counted(processor: Any, rows: Sequence[Pair]) -> list[_Lengths]:
    questions, pictures = [row.question for row in rows], [len(row.images) for row in rows]
    texts = chat_prompts(processor, questions, pictures, [row.history for row in rows])
    prompts = processor.tokenizer(texts, add_special_tokens=False)["input_ids"]
    # Each ends with one token, whichever.
    ends = (processor.tokenizer.pad_token_id,)
    answers = ([row.chosen for row in rows], [row.rejected for row in rows])
    columns = [prompts, *(answer_tokens(processor, texts, ends) for texts in answers)]
    return [_Lengths(*map(len, tokens)) for tokens in zip(*columns, strict=True)]


def _check_late_tokens(anchor_tokens: int, longest: int) -> None:
    """Attention supervision looks at tokens after the first K."""
    fact = f"the longest chosen answer has {longest} (or set train.w_attn to 0)"
    problem = f"{anchor_tokens} tokens leave nothing to supervise: {fact}"
    require(longest > anchor_tokens, "anchor.anchor_tokens", problem)


# ---- pictures ------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class _Seen:
    """What a model sees of pictures of some sizes.

    Its views, how many image tokens, and how many tokens a prompt has more than its text.
    """

    views: tuple[PairView, ...]
    tokens: int
    more: int


def _check_pictures(
    model_config: Any,
    processor: Any,
    row: Pair,
    lengths: _Lengths,
    known: dict[object, _Seen],
) -> None:
    """Grids and lengths; pictures of the same sizes are sent through the processor once."""

    def seen(images: Sequence[bytes]) -> _Seen:
        if (form := tuple(map(shown_size, images))) not in known:
            known[form] = _seen(model_config, processor, row, images, lengths.prompt)
        return known[form]

    own = seen(row.images)
    others = seen(row.rejected_images) if row.rejected_images else own
    fits = row.views == own.views and len(row.anchor) == own.tokens
    made, now = _words(row.views, len(row.anchor)), _words(own.views, own.tokens)
    problem = f"an anchor on {made}, but the model sees these pictures on {now}; {REMAKE}"
    require(fits, "views", problem)
    most = getattr(model_config.get_text_config(), "max_position_embeddings", None)
    answers = (own.more + lengths.chosen, others.more + lengths.rejected)
    length = lengths.prompt + max(answers)
    if most is not None and length > most:
        problem = f"prompt and answer have {length} tokens, the model has {most} positions"
        raise InputError(f"{problem}; leave the row out")


def _seen(
    model_config: Any, processor: Any, row: Pair, images: Sequence[bytes], text: int
) -> _Seen:
    pictures = [open_picture(content) for content in images]
    inputs = encode(processor, [pictures], [row.question], histories=[row.history])
    layout, length = layout_by(model_config, inputs), inputs["input_ids"].shape[1]
    views = tuple(PairView.of(view) for view in layout.of(0))
    return _Seen(views, int(layout.counts_B[0]), length - text)


def _words(views: Sequence[PairView], tokens: int) -> str:
    grids = Counter(f"{view.kind} {view.rows} x {view.columns}" for view in views)
    named = [grid if n == 1 else f"{n} times {grid}" for grid, n in grids.items()]
    return f"{', '.join(named)} ({tokens} tokens)"


@contextlib.contextmanager
def _at(where: str) -> Iterator[None]:
    """Errors of a row's own with the place of the row."""
    try:
        yield
    except PictureProblem as problem:
        raise InputError(f"{where}: a picture {problem}") from None
    except InputError as error:
        raise InputError(f"{where}: {error}") from None
    except UNTAKEN as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"{where}: the model's processor cannot take it: {reason}") from None
