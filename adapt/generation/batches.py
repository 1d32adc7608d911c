"""Questions answered batch by batch, as many at once as the memory of the device holds.

What an answer takes is worked out from the model and the prompts; where that was too little, the
batch is halved and tried again. Answers do not depend on the batch that they were made in.
"""

import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import psutil
import torch
from PIL import Image
from torch import nn

from adapt.attention.layout import image_columns
from adapt.attention.settings import PLACES
from adapt.data.schema import Example, Preference, Turn, open_images
from adapt.generation.answer import Answers, Decoding, answer
from adapt.generation.begun import beginning_tokens, behind
from adapt.generation.settings import Batch
from adapt.models.prompts import encode
from adapt.names import one_line
from adapt.params import InputError

T = TypeVar("T")
R = TypeVar("R")
MOST = 64  # answers at once, where their number is left to us
MEASURED = 4  # prompts that the others are judged by
SHARE = 0.5  # of the free memory: the rest is for the tower, and for what a pass needs for a moment


class Prompt(NamedTuple):
    """A question about pictures, after earlier turns; `id` names what it samples.

    `beginning`: what its answers go on from.
    """

    id: str
    images: Sequence[Image.Image]
    question: str
    history: Sequence[Turn] = ()
    beginning: str = ""


def prompt_of(example: Example | Preference) -> Prompt:
    """A row's prompt, its pictures decoded."""
    return Prompt(example.id, open_images(example), example.question, example.history)


def answered(
    model: nn.Module,
    processor: Any,
    rows: Sequence[T],
    decoding: Decoding,
    batch: Batch,
    prompt: Callable[[T], Prompt],
    key: str = "batch",
) -> Iterator[tuple[Sequence[T], Answers]]:
    """The rows in order, in parts of `batch` rows, each with its answers.

    `prompt` makes a row's prompt; `key` is the parameter that a message names. Raises InputError
    where not even one row fits into the memory.
    """
    size = batch if isinstance(batch, int) else 0
    if rows and not size:
        size = fitting(model, processor, [prompt(row) for row in some(rows)], decoding)

    def together(part: Sequence[T]) -> Answers:
        return asked(model, processor, part, decoding, prompt)

    yield from halved(rows, size, together, key)


def asked(
    model: nn.Module,
    processor: Any,
    rows: Sequence[T],
    decoding: Decoding,
    prompt: Callable[[T], Prompt],
) -> Answers:
    """The answers to the rows, all at once."""
    ids, images, questions, *others = zip(*map(prompt, rows), strict=True)
    return answer(model, processor, images, questions, decoding, ids, *others)


def halved(
    rows: Sequence[T], size: int, work: Callable[[Sequence[T]], R], key: str
) -> Iterator[tuple[Sequence[T], R]]:
    """The rows in order, in parts of `size` rows, each with what `work` makes of it.

    Where the memory of the device does not suffice for a part, it and all after it are halved.
    """
    start = 0
    while start < len(rows):
        part = rows[start : start + size]
        made = _tried(work, part)
        if made is not None:
            yield part, made
            start += len(part)
            continue
        # The failed attempt's tensors are gone with its frames; the cached blocks go as well.
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        if len(part) == 1:
            advice = "lower max_new_tokens or take a larger machine"
            raise InputError(f"{key}: one question does not fit into the memory; {advice}")
        size = len(part) // 2
        print(
            one_line(f"{key}: {len(part)} questions do not fit into the memory; {size}"),
            file=sys.stderr,
        )


def _tried(work: Callable[[Sequence[T]], R], part: Sequence[T]) -> R | None:
    """What it makes of the part; None where the memory does not suffice."""
    try:
        return work(part)
    except torch.OutOfMemoryError:
        return None


# ---- how many fit ------------------------------------------------------------------------------


def some(rows: Sequence[T]) -> Sequence[T]:
    """The few of the rows that the others are judged by."""
    return rows[:: -(-len(rows) // MEASURED)]


def fitting(
    model: nn.Module,
    processor: Any,
    prompts: Sequence[Prompt],
    decoding: Decoding,
    sharing: int = 1,
) -> int:
    """How many questions like these can be answered at once: 1 at least, `MOST` answers at most.

    `sharing`: how many processes divide the memory between them.
    """
    lengths, images = [], []
    for one in prompts:
        batch = encode(processor, [one.images], [one.question], histories=[one.history])
        begun = beginning_tokens(model, processor, [one.beginning])
        ids_1S = behind(processor, batch, begun)["input_ids"]
        lengths.append(ids_1S.shape[1])
        images.append(image_columns(ids_1S, model.config.image_token_id).shape[1])
    each = answer_bytes(model, max(lengths), max(images), decoding)
    device = next(model.parameters()).device
    answers = min(int(SHARE * free_memory(device)) // sharing // each, MOST)
    return max(answers // decoding.samples, 1)


def answer_bytes(model: Any, prompt: int, image_tokens: int, decoding: Decoding) -> int:
    """Memory that one answer takes beside the weights, in bytes.

    Args:
        prompt, image_tokens: how many tokens the prompt has, and how many of them are of pictures.
    """
    text = model.config.get_text_config(decoder=True)
    L, heads, width, tokens = (
        text.num_hidden_layers,
        text.num_attention_heads,
        text.hidden_size,
        decoding.max_new_tokens,
    )
    kv_heads = getattr(text, "num_key_value_heads", None) or heads
    head_size = getattr(text, "head_dim", None) or width // heads
    inner = getattr(text, "intermediate_size", None) or 4 * width
    item, length = model.dtype.itemsize, prompt + tokens
    # 1. The cache: keys and values of every position, of the last ones in a window.
    kinds = getattr(text, "layer_types", None) or ["full_attention"] * L
    window = getattr(text, "sliding_window", None) or length
    seen = [min(window, length) if kind == "sliding_attention" else length for kind in kinds]
    cache = 2 * kv_heads * head_size * item * (sum(seen) + max(seen))  # a layer is copied to grow
    # 2. A pass over the prompt, one layer at a time, and its mask.
    reading = prompt * item * (2 * inner + 8 * width) + prompt**2 * (1 + item)
    # 3. Scores of the vocabulary: fp32, some copies of them, noise in 64 bits.
    scores = text.vocab_size * (4 * 4 + 8 * (decoding.temperature > 0))
    # 4. What the observer keeps: maps of the first K tokens, of one step, and sums.
    maps = 4 * image_tokens * L * (decoding.anchor_tokens + 4)
    sums = 4 * tokens * (2 * image_tokens + 6 * L)
    # 5. Hidden states of the picture at each place of similarity, in fp32 at most.
    states = 4 * image_tokens * width * len(PLACES) * decoding.similarity
    return cache + reading + scores + maps + sums + states


def free_memory(device: torch.device) -> int:
    """Bytes that this process can still take on the device."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return free + unused
    if device.type == "mps":
        return torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory()
    free = psutil.virtual_memory().available
    limits = [limit for limit in (_cgroup_room(folder) for folder in CGROUPS) if limit is not None]
    return min([free, *limits])


# Where a container's limit stands: the file of the limit and the one of what is in use.
CGROUPS = (
    (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")),
    (
        Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
        Path("/sys/fs/cgroup/memory/memory.usage_in_bytes"),
    ),
)


def _cgroup_room(files: tuple[Path, Path]) -> int | None:
    """What a container may still take; None where there is no limit."""
    try:
        limit, used = (path.read_text().strip() for path in files)
    except OSError:
        return None
    return max(int(limit) - int(used), 0) if limit.isdigit() else None
