"""What a model takes of rows: how many tokens its texts become, and which grids their pictures.

Raises InputError with file and row for one that it does not take. Reads configuration and
processor, no weights. What is asked of all rows together is in `adapt/preference/checks.py`.
"""

import contextlib
import dataclasses
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from adapt.attention.layout import layout_by
from adapt.data.pictures import PictureProblem, open_picture, shown_size
from adapt.data.schema import Example
from adapt.models.prompts import answer_tokens, chat_prompts, encode
from adapt.pairs.beginning import begun_tokens
from adapt.pairs.table import REMAKE, Pair, PairView
from adapt.params import InputError, require

Row = Pair | Example
SIDES = ("chosen", "rejected")
# What processors raise for a picture or a text that they are not made for.
UNTAKEN = (ValueError, TypeError, LookupError, ArithmeticError, RuntimeError)


# ---- texts ---------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Lengths:
    """Tokens of a row; `prompt` with one sign for each picture, in place of its tokens.

    `begun`: those that both answers begin with and are not trained on. A row with one answer has it
    as `chosen`.
    """

    prompt: int
    begun: int
    chosen: int
    rejected: int = 0


def lengths_of(
    processor: Any, path: Path, rows: Sequence[tuple[int, Row]], sides: Sequence[str] = SIDES
) -> list[Lengths]:
    """Of every numbered row; InputError with the row for a text that holds a special token."""
    try:
        return _counted(processor, [row for _, row in rows], sides)
    except InputError:  # somewhere among them
        for number, row in rows:
            with at(f"{path}: row {number} ({row.id})"):
                _counted(processor, [row], sides)
        raise


def _counted(processor: Any, rows: Sequence[Row], sides: Sequence[str]) -> list[Lengths]:
    questions, pictures = [row.question for row in rows], [len(row.images) for row in rows]
    texts = chat_prompts(processor, questions, pictures, [row.history for row in rows])
    prompts = processor.tokenizer(texts, add_special_tokens=False)["input_ids"]
    # Each ends with one token, whichever.
    ends = (processor.tokenizer.pad_token_id,)
    answers = ([getattr(row, side) for row in rows] for side in sides)
    tokens = (map(len, answer_tokens(processor, texts, ends)) for texts in answers)
    begun = [_begun(processor, row, ends) for row in rows]
    return [Lengths(*one) for one in zip(map(len, prompts), begun, *tokens, strict=True)]


def _begun(processor: Any, row: Row, ends: Sequence[int]) -> int:
    if isinstance(row, Example):
        return 0
    return begun_tokens(processor, row.prefix, (row.chosen, row.rejected), ends)


# ---- pictures ------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Seen:
    """What a model sees of pictures of some sizes.

    Its views, how many image tokens, and how many tokens a prompt has more than its text; `sizes`
    are (width, height) of each picture.
    """

    views: tuple[PairView, ...]
    tokens: int
    more: int
    sizes: tuple[tuple[int, int], ...]


def check_pictures(
    model_config: Any,
    processor: Any,
    row: Pair,
    lengths: Lengths,
    known: dict[object, Seen],
) -> Seen:
    """That the model sees the pictures as the row's anchor does, and has room for its answers.

    Returns what is seen of them, of the rejected answer's where that is more.
    """
    looked = partial(seen_of, model_config, processor, row, lengths=lengths, known=known)
    own = looked(row.images)
    others = looked(row.rejected_images) if row.rejected_images else own
    fits = row.views == own.views and len(row.anchor) == own.tokens
    made, now = _words(row.views, len(row.anchor)), _words(own.views, own.tokens)
    problem = f"an anchor on {made}, but the model sees these pictures on {now}; {REMAKE}"
    require(fits, "views", problem)
    answers = (own.more + lengths.chosen, others.more + lengths.rejected)
    check_length(model_config, lengths.prompt + max(answers))
    return max(own, others, key=lambda seen: seen.more)


def check_length(model_config: Any, length: int) -> None:
    """That the model has a position for each token of a prompt and its answer."""
    most = getattr(model_config.get_text_config(), "max_position_embeddings", None)
    if most is not None and length > most:
        problem = f"prompt and answer have {length} tokens, the model has {most} positions"
        raise InputError(f"{problem}; leave the row out")


def seen_of(
    model_config: Any,
    processor: Any,
    row: Row,
    images: Sequence[bytes],
    lengths: Lengths,
    known: dict[object, Seen],
) -> Seen:
    """What is seen of the pictures; those of the same sizes go through the processor once."""
    if (form := tuple(map(shown_size, images))) not in known:
        known[form] = _seen(model_config, processor, row, images, lengths.prompt)
    return known[form]


def _seen(model_config: Any, processor: Any, row: Row, images: Sequence[bytes], text: int) -> Seen:
    pictures = [open_picture(content) for content in images]
    inputs = encode(processor, [pictures], [row.question], histories=[row.history])
    layout, length = layout_by(model_config, inputs), inputs["input_ids"].shape[1]
    views = tuple(PairView.of(view) for view in layout.of(0))
    sizes = tuple(picture.size for picture in pictures)
    return Seen(views, int(layout.counts_B[0]), length - text, sizes)


def _words(views: Sequence[PairView], tokens: int) -> str:
    grids = Counter(f"{view.kind} {view.rows} x {view.columns}" for view in views)
    named = [grid if n == 1 else f"{n} times {grid}" for grid, n in grids.items()]
    return f"{', '.join(named)} ({tokens} tokens)"


@contextlib.contextmanager
def at(where: str) -> Iterator[None]:
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
