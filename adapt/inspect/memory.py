"""What a batch of answers takes, in bytes: a formula for each part, and their sum.

Every part is worked out from the sizes of the model and of its prompt (`adapt/inspect/sizes.py`);
nothing is run. What is kept until something else needs it is counted exactly; what lives for a
moment is an estimate from the shapes of the largest tensors. `python -m benchmarks.memory` compares
the sums with measured peaks. Training: `adapt/inspect/training.py`.

Letters in formulas: R rows (answers side by side, or sequences of a pass), P prompt tokens, T
answer tokens, S = P + T, N image tokens, L layers, H heads, K heads of keys and values, D head
size, h width, i inner width, V vocabulary, W weights, b bytes of a number.
"""

import dataclasses
from collections.abc import Mapping

from adapt.attention.settings import PLACES
from adapt.attention.trace import together
from adapt.inspect.sizes import Sizes, Stack

FP32 = 4


@dataclasses.dataclass(frozen=True, kw_only=True)
class Decoding:
    """A batch of answers: how many, of how many tokens, K anchor tokens, bytes of a number."""

    rows: int
    answer: int
    anchor_tokens: int
    each: int
    is_sampled: bool


def decoding(sizes: Sizes, plan: Decoding) -> dict[str, int]:
    """The parts of a batch of answers at their peak; what they are called in the report."""
    parts = {
        "weights": weights(sizes, plan.each),
        "cache": cache(sizes, plan.rows, sizes.prompt + plan.answer, plan.each),
        "capture": capture(sizes, plan),
        "logits": logits(sizes, plan),
    }
    # Three moments are high: the pictures in the tower, before there is a cache; the prompt, with
    # a cache of its length; the last step. What is over the parts that are there at the end:
    start = cache(sizes, plan.rows, sizes.prompt, plan.each) + prompt_work(sizes, plan)
    later = parts["cache"] + parts["capture"]
    first = max(tower_work(sizes, plan), start) - later
    return parts | {"working": max(first, step_work(sizes, plan))}


def weights(sizes: Sizes, each: float) -> int:
    """W b: every weight once, in the numbers that the model computes with."""
    return round(sum(sizes.parameters.values()) * each)


def cache(sizes: Sizes, rows: int, length: int, each: int) -> int:
    """2 R K D b times the sum of what each layer keeps: all S tokens, or its window's."""
    kept = sum(min(length, w - 1) if w else length for w in sizes.windows)
    return 2 * rows * sizes.key_value_heads * sizes.head_size * each * kept


def capture(sizes: Sizes, plan: Decoding) -> int:
    """4 R (L N K + n (4 L N + 3 H S) + T (2 N + 6 L), and 2 N h where answers are not sampled).

    Maps of the first K tokens; those of n steps with what is worked out from them, and the logits
    of a layer with their softmax; the mean map of each token, copied once at the end; five signals
    and a mark for each token and layer (adapt/attention/trace.py). Hidden states of the picture at
    two places, in fp32 at most, for the answers of the tables (adapt/attention/similarity.py).
    """
    layers, image = len(sizes.windows), sizes.image_tokens
    maps, row = layers * image, sizes.heads * (sizes.prompt + plan.answer)
    n = min(together(plan.rows * maps, plan.rows * row), plan.answer) if plan.rows else 0
    kept = maps * min(plan.anchor_tokens, plan.answer) + n * (4 * maps + 3 * row)
    states = 0 if plan.is_sampled else len(PLACES) * image * sizes.decoder.width
    return FP32 * plan.rows * (kept + plan.answer * (2 * image + 6 * layers) + states)


def logits(sizes: Sizes, plan: Decoding) -> int:
    """R V (4 * 4, and 8 where answers are sampled).

    A step's logits in fp32, the ones before, a softmax and what it is made of; noise in 64 bits.
    """
    return plan.rows * sizes.vocabulary * (4 * FP32 + (8 if plan.is_sampled else 0))


def step_work(sizes: Sizes, plan: Decoding) -> int:
    """A step's largest layer: its cache copied once as it grows.

    R 2 K D S b: keys and values old and new side by side.
    """
    copied = 2 * sizes.key_value_heads * sizes.head_size * plan.each
    return plan.rows * (sizes.prompt + plan.answer) * copied


def tower_work(sizes: Sizes, plan: Decoding) -> int:
    """R (pixels 4 + patches (w + L h b)), w of the tower; see `prompt_work`.

    L h b where the tower hands on the states of all its blocks, of which the model takes some.
    """
    kept = sizes.tower.blocks * sizes.tower.width * plan.each if sizes.keeps_states else 0
    forward = _forward(sizes.tower, plan.each)
    return plan.rows * (sizes.pixels * FP32 + sizes.patches * (forward + kept))


def prompt_work(sizes: Sizes, plan: Decoding) -> int:
    """What the pass over the prompts of all rows takes."""
    return forward_work(sizes, plan.rows, sizes.prompt, plan.each)


def forward_work(sizes: Sizes, rows: int, length: int, each: int) -> int:
    """R (pixels 4 + P w + P^2 (1 + b)), with w = (4 h + 3 i) b of the decoder.

    w: the states around a block and the inner ones of its feed-forward part, without gradients;
    P^2: the mask, as truth and as numbers.
    """
    decoder = length * (_forward(sizes.decoder, each) + length * (1 + each))
    return rows * (sizes.pixels * FP32 + decoder)


def _forward(stack: Stack, each: int) -> int:
    """w, bytes for each token."""
    return (4 * stack.width + 3 * stack.inner) * each


def total(parts: Mapping[str, int]) -> int:
    """The sum of all parts.

    >>> total({"weights": 2, "cache": 3})
    5
    """
    return sum(parts.values())
