"""What a step of training takes, in bytes: a formula for each part; letters as in `memory.py`."""

import math

from adapt.attention import rows as rows_of_attention
from adapt.inspect.memory import FP32, forward_work, total, weights
from adapt.inspect.passes import Pass, shapes
from adapt.inspect.sizes import Sizes, Stack

# TRL's head makes logits of so many tokens and words at once: trl/kernels/chunked_logprob.py.
HEAD_TOKENS, HEAD_WORDS = 4096, 32768
BLOCK = 256  # numbers in 8 bits that share a scale: bitsandbytes


def step(sizes: Sizes, plan: Pass) -> dict[str, int]:
    """The parts of one process at the peak of a step."""
    parts = {
        "weights": held(sizes, plan),
        "autocast": casts(sizes, plan, kept=not plan.checkpointing),
        "gradients": gradients(plan),
        "optimizer": optimizer(sizes, plan),
        "activations": activations(sizes, plan),
        "capture": capture(sizes, plan),
        "logits": head_work(sizes, plan),
    }
    passing = parts["activations"] + parts["capture"] + parts["logits"]
    parts["gathered"] = max(gathered(sizes, plan), gathered_last(sizes, plan) - passing)
    if plan.passes == 1:
        # Gradients come as activations go: of the two, the smaller is not there at the peak.
        smaller = min(parts["gradients"], parts["activations"])
        parts["gradients"] -= smaller if smaller == parts["gradients"] else 0
        parts["activations"] -= smaller if smaller == parts["activations"] else 0
    # An update is behind the passes: what they took is free for what comes then.
    passed = total(parts) - parts["weights"] - parts["optimizer"]
    parts["optimizer"] += max(0, gradients(plan) + visit(plan) - passed)
    return parts


def held(sizes: Sizes, plan: Pass) -> int:
    """W stored, and 4 for each weight of an adapter: of a divided model this process's share."""
    return (weights(sizes, plan.stored) + FP32 * plan.adapters) // _shares(plan)


def _shares(plan: Pass) -> int:
    """Among how many processes weights, gradients and moments are divided."""
    return plan.processes if plan.divided else 1


def casts(sizes: Sizes, plan: Pass, kept: bool) -> int:
    """W b under autocast: the 16-bit copies of the fp32 weights, `kept` from forward to backward.

    Those of a divided model as well: what autograd keeps is a copy, not the weight that is let go.
    Else (W_outside + W_block) b: a block's go with its forward (adapt/preference/precision.py).
    """
    share = 1 if kept else (sizes.outside + sizes.block) / sum(sizes.parameters.values())
    base = weights(sizes, plan.each) if plan.each < plan.stored else 0
    return round(share * (base + (plan.adapters * plan.each if plan.each < FP32 else 0)))


def gradients(plan: Pass) -> int:
    """4 W_trained; twice that with several processes, which exchange a copy in buckets.

    Of a divided model the share: a block's gradients are divided as soon as they are there.
    """
    if plan.divided:
        return plan.trained * FP32 // plan.processes
    return plan.trained * FP32 * (2 if plan.processes > 1 else 1)


def optimizer(sizes: Sizes, plan: Pass) -> int:
    """What the optimizer keeps of trained weights; of a divided model the share.

    Nothing where it lives in main memory (`train.offload`), and that is another one: see `visit`.
    """
    return 0 if plan.away else moments(sizes, plan) // _shares(plan)


def visit(plan: Pass) -> int:
    """8 W_largest: both moments of the largest trained tensor, while it is updated; else 0.

    Those of one tensor at a time come for an update, of a divided model the share. They stand
    beside gradients when activations are gone, so that few steps take more for them: see `step`.
    """
    return 2 * FP32 * plan.visits // _shares(plan)


def moments(sizes: Sizes, plan: Pass) -> int:
    """8 W_trained: AdamW's two moments in fp32.

    In 8 bits 2 W_trained and two scales in fp32 for every 256; those of the embeddings in fp32.
    Adafactor's: 4 for each row and each column of a matrix, and for each number of a vector.
    """
    if plan.optimizer == "adafactor":
        return FP32 * plan.factored
    if plan.optimizer == "adamw":
        return 2 * FP32 * plan.trained
    wide = sizes.head if plan.trains_head else 0  # embeddings, or an output layer tied to them
    return round(2 * (1 + FP32 / BLOCK) * (plan.trained - wide)) + 2 * FP32 * wide


def gathered(sizes: Sizes, plan: Pass) -> int:
    """What a divided model has whole during a pass: W_outside + 2 W_block + 2 * 4 W_block,trained.

    What lies outside of blocks, from the forward's begin to the backward's end; the block that is
    at work, and the next one on its way; the gradients of one, and what they are exchanged in.
    """
    if not plan.divided:
        return 0
    block, trained = _block(sizes, plan)
    return round(sizes.outside * plan.stored + 2 * block + 2 * FP32 * trained)


def gathered_last(sizes: Sizes, plan: Pass) -> int:
    """The same at the end of a backward, without activations: W_outside, its gradients twice."""
    if not plan.divided:
        return 0
    trained = sizes.outside if plan.trains_head else 0
    return round(sizes.outside * plan.stored + 2 * FP32 * trained)


def _block(sizes: Sizes, plan: Pass) -> tuple[float, float]:
    """Bytes of the largest block's weights, adapters with them, and how many it trains."""
    adapters = plan.adapters / sizes.decoder.blocks
    trained = adapters if plan.adapters else sizes.block
    return sizes.block * plan.stored + FP32 * adapters, trained


def reference(sizes: Sizes, plan: Pass) -> int:
    """The peak of a pass that works out what the base says, before the first step.

    Weights, what is gathered of them, and of the largest pass what a forward without gradients
    takes: see `forward_work` of `memory.py`.
    """
    apart, tile = max(shapes(sizes, plan), key=math.prod), head_tile(sizes, plan)
    logits = max(tile, distilled_logits(sizes, plan, kept=4))
    block, _ = _block(sizes, plan)
    whole = sizes.outside * plan.stored + 2 * block if plan.divided else 0
    states = forward_work(sizes, *apart, plan.each)
    copies = casts(sizes, plan, kept=False)
    return round(held(sizes, plan) + copies + whole + states + logits)


def main_memory(sizes: Sizes, plan: Pass, file: int) -> int:
    """The most that a process with a GPU takes of main memory.

    While the model is read; or later the moments that live there, of a divided model the share; or
    of a divided one 4 (W + W_trained), while the first process puts it together and writes it.
    """
    later = moments(sizes, plan) // _shares(plan) if plan.away else 0
    written = weights(sizes, FP32) + FP32 * plan.trained if plan.divided else 0
    return max(loading(sizes, plan, file), later, written)


def loading(sizes: Sizes, plan: Pass, file: int) -> int:
    """W (stored + file): main memory while a model is read; `file`: bytes of a number there.

    Of a divided one in every process, which reads all of it and the pages of its file; these are
    shared by the processes of a machine, and the system may take them back.
    """
    return weights(sizes, plan.stored + file)


def activations(sizes: Sizes, plan: Pass) -> int:
    """What the largest pass keeps for its backward: decoder, projector, and the tower if trained.

    The plain pass has R = pairs sequences of P + 2 T + 1 tokens where prompts are shared, else 2
    pairs of S; the guided pass always the latter; the kept one a sequence of S for each plain row.
    See `kept_by_block`. With checkpointing only each block's input is kept, L h b, and one block is
    computed again.
    """
    sequences, length = max(shapes(sizes, plan), key=math.prod)
    decoder = sequences * length * _kept(sizes.decoder, plan, length)
    pictures = sequences * sizes.image_tokens * sizes.projector * plan.each
    tower = sequences * sizes.patches * _kept(sizes.tower, plan, 0) if plan.trains_tower else 0
    return round(decoder + pictures + tower + _frozen_work(sizes, plan, sequences))


def kept_by_block(stack: Stack, plan: Pass, length: int) -> float:
    """Bytes that the backward pass of one block keeps for each token.

    1. b (inputs and outputs of the linear layers + i + S - h): i is the activation function, S a
       row of the mask as numbers. Keys and values count as often as the heads read them
       (`Stack.repeated`): under a mask they are copied for each. Of a block with norms before
       attention and before the feed-forward part, the inputs of its linear layers count its norms.
    2. In fp32 b (2 n - 4 h) for further norms, n the widths of all. Adapters leave norms frozen,
       which keep one number for each of theirs in place of two: 4 n less.
    3. Under autocast every linear layer that trains keeps a cast of its input for itself, so that
       of layers that are not adapted the input is not kept; norms compute in fp32 and keep their
       input: 4 n.
    4. Of full training under autocast the states between blocks are fp32, and weights of norms too:
       4 n more; what attention hands on is kept once, as its output and as an input: h less.
    """
    norms, inputs = stack.norms / stack.blocks, stack.inputs / stack.blocks
    others = (stack.outputs + stack.repeated) / stack.blocks + stack.inner + length - stack.width
    if plan.each == FP32:
        more = max(0.0, 2 * norms - 4 * stack.width)
        return FP32 * (inputs + others + more - (norms if plan.adapters else 0))
    if plan.adapters:
        return plan.each * (plan.adapted * inputs + others) + FP32 * norms
    return plan.each * (inputs + others - stack.width) + 2 * FP32 * norms


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
    rows, (_, length) = plan.pairs * plan.answer, shapes(sizes, plan)[0]
    of_token = sizes.heads * (sizes.head_size * plan.each + FP32) + FP32 * sizes.image_tokens
    chunk = min(rows_of_attention.CHUNK, rows * sizes.heads * length)
    return plan.layers * rows * of_token + 4 * FP32 * chunk


def head_work(sizes: Sizes, plan: Pass) -> int:
    """A tile of logits or those of the kept pass, and the head's gradient, 4 V h."""
    logits = max(head_tile(sizes, plan), distilled_logits(sizes, plan, kept=6))
    return logits + (sizes.head * FP32 if plan.trains_head else 0)


def head_tile(sizes: Sizes, plan: Pass) -> int:
    """A tile of logits, of the tokens of a pass, at most 4,096, and of 32,768 words.

    n 32,768 b where a kernel folds it in place. Elsewhere n min(V, 32,768) (b + 29): seven tensors
    in fp32 and one of truths besides, and of the tile no more than is written to.
    """
    tokens = min(HEAD_TOKENS, max(math.prod(shape) for shape in shapes(sizes, plan)))
    if plan.fused:
        return tokens * HEAD_WORDS * plan.each
    return tokens * min(sizes.vocabulary, HEAD_WORDS) * (plan.each + 7 * FP32 + 1)


def distilled_logits(sizes: Sizes, plan: Pass, kept: int) -> int:
    """R T V (2 b + 4 kept) of plain rows that are held to the base's distributions, else 0.

    Logits, once more those of answers, and `kept` tensors of their size in fp32: of a forward
    log-probabilities, the same bounded, what is left without the likely words and its exponentials;
    two more in the backward.
    """
    tokens = plan.kept * plan.answer if plan.distilled else 0
    return tokens * sizes.vocabulary * (2 * plan.each + FP32 * kept)


def checkpoint(sizes: Sizes, plan: Pass) -> int:
    """Weights as they are trained, and the optimizer's state; with LoRA the adapters' alone.

    All files together. Of a divided model what is trained, a file for each process.
    """
    if plan.adapters or plan.divided:
        return FP32 * plan.trained + moments(sizes, plan)
    return weights(sizes, plan.stored) + moments(sizes, plan)
