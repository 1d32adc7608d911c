"""Peak memory of `answer`, with capture and steering, against plain `generate`.

    python -m benchmarks.generation_memory [--sizes small] [--batch 16] [--tokens 256]

The models of `benchmarks/decode_step.py`: prompts of 640 tokens with 576 image tokens. Each side
runs in a process of its own, whose largest resident set is read from the operating system at its
end (on CUDA, the allocator's peak); what the process took before it generated is subtracted, which
is the weights and the libraries. Freed memory goes back at once, so that the resident set is what
is in use. `answer` is the whole of it: the prompt's tensors, the observer, what it keeps and hands
back, with steering at alpha 0.5 and tau 1.
"""

import argparse
import os
import resource
import subprocess
import sys
from functools import partial
from types import SimpleNamespace
from typing import Any
from unittest import mock

import torch
from transformers import BatchFeature

from adapt.generation import answer as answering
from adapt.generation.answer import Decoding
from benchmarks.decode_step import ANCHOR_TOKENS, SIDES, SIZES, build, inputs_of
from benchmarks.sides import IN_USE, arguments, by_turns, progress, ratios, spread, table, write

WORDS = SimpleNamespace(
    tokenizer=SimpleNamespace(pad_token_id=0, eos_token_id=None),
    batch_decode=lambda rows, skip_special_tokens: [""] * len(rows),
)


def peak(device: str) -> int:
    """The most memory that this process has taken so far, in bytes."""
    if device.startswith("cuda"):
        return torch.cuda.max_memory_allocated()
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def generate(side: str, options: argparse.Namespace) -> None:
    """One generation of the side, in this process; prints the bytes that it took at its peak."""
    torch.set_num_threads(options.threads)
    (size,), (batch,) = options.sizes, options.batch
    model = build(SIZES[size], options)
    # Nothing ends an answer: the last token of the vocabulary is never said.
    never = model.config.text_config.vocab_size - 1
    model.generation_config.suppress_tokens = [never]
    model.generation_config.eos_token_id = never
    inputs = inputs_of(model, batch, options)
    with torch.inference_mode():  # what the first pass leaves behind for good
        model(**{name: value[:1] for name, value in inputs.items()}, logits_to_keep=1)
    before = peak(options.device)
    if side == "plain":
        model.generate(**inputs, max_new_tokens=options.tokens, do_sample=False)
    else:
        _answer(model, inputs, side, options)
    print(peak(options.device) - before)


def _answer(model: Any, inputs: Any, side: str, options: argparse.Namespace) -> None:
    decoding = Decoding(
        anchor_tokens=ANCHOR_TOKENS, max_new_tokens=options.tokens, steer=SIDES[side]
    )
    count = len(inputs["input_ids"])
    # Random ids stand for prompts: there is no tokenizer here.
    with mock.patch.object(answering, "encode", lambda *_, **__: BatchFeature(inputs)):
        answers = answering.answer(model, WORDS, [[]] * count, [""] * count, decoding)
    assert answers.mask_BT.shape == (count, options.tokens)


def measured(side: str, size: str, batch: int, options: argparse.Namespace) -> float:
    """MiB that the side took beyond weights and libraries, in a process of its own."""
    settings = {"--sizes": size, "--batch": batch, "--tokens": options.tokens}
    settings |= {"--threads": options.threads, "--device": options.device}
    settings |= {"--dtype": options.dtype}
    words = [str(word) for pair in settings.items() for word in pair]
    command = [sys.executable, "-m", "benchmarks.generation_memory", "--side", side, *words]
    done = subprocess.run(
        command, env=os.environ | IN_USE, stdout=subprocess.PIPE, text=True, check=True
    )
    return int(done.stdout.split()[-1]) / 2**20


def main() -> None:
    """Measure, print and write; with --side one generation."""
    parser = arguments(__doc__.splitlines()[0], list(SIZES), ["small"], repeats=1)
    parser.add_argument("--batch", nargs="+", type=int, default=[16])
    parser.add_argument("--tokens", type=int, default=256, help="per answer")
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--side", choices=list(SIDES), help="one generation in this process")
    options = parser.parse_args()
    if options.side:
        return generate(options.side, options)
    rows = []
    for size in options.sizes:
        for batch in options.batch:
            sides = {side: partial(measured, side, size, batch, options) for side in SIDES}
            mebibytes = by_turns(sides, options.repeats, f"{size}, batch {batch}", warm_up=0)
            rows += [
                {
                    "size": size,
                    "batch": str(batch),
                    "side": side,
                    "MiB at the peak": spread(mebibytes[side], 0),
                    "/ plain": spread(ratios(mebibytes, side, "plain")),
                }
                for side in SIDES
            ]
            progress(f"{size}, batch {batch}: done")
            print(table(rows[-len(SIDES) :]), flush=True)
    notes = [
        f"{options.dtype}, prompt of 640 tokens with 576 image tokens, answers of {options.tokens}"
        " tokens; beyond the weights, one process per value."
    ]
    write("generation_memory", "Memory of answers with capture and steering", notes, rows, options)


if __name__ == "__main__":
    main()
