"""What a step of training takes, in bytes: a formula for each part; letters as in `memory.py`."""

import dataclasses

from adapt.attention import rows as rows_of_attention
from adapt.inspect.memory import FP32, weights
from adapt.inspect.sizes import Sizes, Stack

# TRL's head makes logits of so many tokens and words at once: trl/kernels/chunked_logprob.py.
HEAD_TOKENS, HEAD_WORDS = 4096, 32768


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pass:
    """One pass of one process.

    `pairs` of answers of `answer` tokens; `trained`: weights that have a gradient, adapters with
    them; `adapters`: those of LoRA; `ranks`: of all layers that it adapts, added up; `layers`: how
    many are supervised. `stored`: bytes of a weight; `each`: bytes of an
    activation, smaller than `stored` under autocast. `passes`: forwards with a backward before an
    update; `shares`: whether the two answers of a pair share their prompt; `guided`: whether there
    is a pass over guided pictures; `trains_head`, `trains_tower`: whether these have gradients.
    """

    pairs: int
    answer: int
    trained: int
    adapters: int
    ranks: int
    layers: int
    stored: float
    each: int
    passes: int
    processes: int
    checkpointing: bool
    shares: bool
    guided: bool
    trains_head: bool
    trains_tower: bool


def step(sizes: Sizes, plan: Pass) -> dict[str, int]:
    """The parts of one process at the peak of a step."""
    parts = {
        "weights": weights(sizes, plan.stored) + FP32 * plan.adapters,
        "autocast": casts(sizes, plan),
        "gradients": gradients(plan),
        "optimizer": optimizer(plan),
        "activations": activations(sizes, plan),
        "capture": capture(sizes, plan),
        "logits": head_work(sizes, plan),
    }
    if plan.passes == 1:
        # Gradients come as activations go: of the two, the smaller is not there at the peak.
        smaller = min(parts["gradients"], parts["activations"])
        parts["gradients"] -= smaller if smaller == parts["gradients"] else 0
        parts["activations"] -= smaller if smaller == parts["activations"] else 0
    return parts


def casts(sizes: Sizes, plan: Pass) -> int:
    """W b under autocast: the 16-bit copies of the fp32 weights, kept from forward to backward."""
    is_cast = plan.each < plan.stored
    return weights(sizes, plan.each) if is_cast else 0


def gradients(plan: Pass) -> int:
    """4 W_trained; twice that with several processes, which exchange a copy in buckets."""
    return plan.trained * FP32 * (2 if plan.processes > 1 else 1)


def optimizer(plan: Pass) -> int:
    """8 W_trained: AdamW's two moments in fp32."""
    return plan.trained * 2 * FP32


def activations(sizes: Sizes, plan: Pass) -> int:
    """What the backward pass of the larger pass needs, of decoder, projector, and tower if trained.

    The plain pass has R = pairs sequences of P + 2 T + 1 tokens where prompts are shared, else 2
    pairs of S; the guided pass always the latter. See `kept_by_block`. With checkpointing only
    each block's input is kept, L h b, and one block is computed again.
    """
    plain, guided = pass_shapes(sizes, plan)
    sequences, length = max((plain, guided), key=lambda shape: shape[0] * shape[1])
    decoder = sequences * length * _kept(sizes.decoder, plan, length)
    pictures = sequences * sizes.image_tokens * sizes.projector * plan.each
    tower = sequences * sizes.patches * _kept(sizes.tower, plan, 0) if plan.trains_tower else 0
    return round(decoder + pictures + tower + _frozen_work(sizes, plan, sequences))


def pass_shapes(sizes: Sizes, plan: Pass) -> tuple[tuple[int, int], tuple[int, int]]:
    """(sequences, tokens of each) of the plain and of the guided pass; (0, 0) where there is none.

    The word that stands twice in a shared sequence is the prompt's last one.
    """
    apart = (2 * plan.pairs, sizes.prompt + plan.answer)
    shared = (plan.pairs, sizes.prompt + 2 * plan.answer + 1)
    return (shared if plan.shares else apart), (apart if plan.guided else (0, 0))


def kept_by_block(stack: Stack, plan: Pass, length: int) -> float:
    """Bytes that the backward pass of one block keeps for each token.

    b (sum of inputs and outputs of the linear layers + i + S) + 2 (4 - b) n + b (2 n - 4 h): of a
    block with norms before attention and before the feed-forward part, the inputs of its linear
    layers count its norms; i is the activation function; S a row of the mask as numbers; n the
    widths of its norms, which compute in fp32 and keep two numbers for each of theirs. Under
    adapters the norms are frozen and keep one: 4 n less.
    """
    linear, norms = stack.linear / stack.blocks, stack.norms / stack.blocks
    more = max(0.0, 2 * norms - 4 * stack.width)
    of_norms = 2 * (FP32 - plan.each) * norms - (FP32 * norms if plan.adapters else 0)
    return plan.each * (linear + stack.inner + length + more) + of_norms


def _kept(stack: Stack, plan: Pass, length: int) -> float:
    """Bytes for each token of all blocks."""
    one = kept_by_block(stack, plan, length)
    if plan.checkpointing:
        return stack.blocks * stack.width * max(plan.each, min(plan.stored, FP32)) + one
    return stack.blocks * one + plan.ranks * plan.each


def _frozen_work(sizes: Sizes, plan: Pass, sequences: int) -> int:
    """The states that a frozen tower hands on, and its pictures: gone before the backward pass.

    The pictures stay, as they are part of the batch.
    """
    return sequences * sizes.pixels * FP32


def capture(sizes: Sizes, plan: Pass) -> int:
    """Attention supervision: R L' (T H D b + 4 T H + 4 T N), and the chunks it is computed in.

    Of every supervised layer: queries of the chosen answer, a normaliser for each head, the maps.
    A chunk is some rows' logits, at most adapt/attention/rows.py's CHUNK, in four tensors.
    """
    if not plan.layers:
        return 0
    rows, (_, length) = plan.pairs * plan.answer, pass_shapes(sizes, plan)[0]
    of_token = sizes.heads * (sizes.head_size * plan.each + FP32) + FP32 * sizes.image_tokens
    chunk = min(rows_of_attention.CHUNK, rows * sizes.heads * length)
    return plan.layers * rows * of_token + 4 * FP32 * chunk


def head_work(sizes: Sizes, plan: Pass) -> int:
    """A tile of logits, 3 in fp32 where they are folded, and the head's gradient, 4 V h.

    The tile has the tokens of a pass, at most 4,096, and 32,768 words.
    """
    plain, guided = pass_shapes(sizes, plan)
    tokens = min(HEAD_TOKENS, max(plain[0] * plain[1], guided[0] * guided[1]))
    tile = tokens * min(sizes.vocabulary, HEAD_WORDS) * (plan.each + 2 * FP32)
    return tile + (sizes.head * FP32 if plan.trains_head else 0)


def checkpoint(sizes: Sizes, plan: Pass) -> int:
    """Weights as they are trained, and the optimizer's state; with LoRA the adapters' alone."""
    kept = FP32 * plan.adapters if plan.adapters else weights(sizes, plan.stored)
    return kept + optimizer(plan)
