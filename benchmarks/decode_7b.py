"""Capture and steering against plain `generate` at 7 B; a part of `benchmarks/on_gpu.py`.

Token by token, the sides in turns after every token (`benchmarks/decode_step.py`); then whole
answers, the prompt and the way from pictures to texts included, with their peak of memory.
"""

import argparse
import itertools
import time
from collections.abc import Callable
from typing import Any

import torch

from adapt.generation.answer import Decoding, answer
from adapt.models.prompts import prompt_inputs
from benchmarks import decode_step, shapes
from benchmarks.sides import Clock, GrowingTable, ratios, spread

QUESTION = " ".join(shapes.WORDS[:6])


def decode(case: shapes.Published, model: Any, processor: Any, options: argparse.Namespace) -> None:
    """Two tables: a step, and whole answers, whose second turn goes as far as time allows."""
    _by_token(case, model, processor, options)
    _whole(case, model, processor, options)


def _by_token(
    case: shapes.Published, model: Any, processor: Any, options: argparse.Namespace
) -> None:
    options.tokens = 10 if options.tiny else 40
    about = f"{options.dtype}; median (quartiles) of the steps of {options.tokens} tokens."
    title = f"{case.name}: a decode step with capture and steering"
    table = GrowingTable("on_gpu", title, about, options)
    models = {name: decode_step.twin(model, options) for name in decode_step.SIDES}
    for batch in (1, 2 if options.tiny else 16):
        pictures = [[one] for one in case.pictures(batch, options.tiny)]
        inputs = dict(prompt_inputs(model, processor, pictures, [QUESTION] * batch))
        decode_step.generation(models, inputs, options)  # unmeasured
        times = decode_step.generation(models, inputs, options)
        for side, steps in times.items():
            by_plain = spread(ratios(times, side, "plain"))
            table.row(batch=str(batch), side=side, ms_per_step=spread(steps, 1), by_plain=by_plain)
    table.close()


def _whole(case: shapes.Published, model: Any, processor: Any, options: argparse.Namespace) -> None:
    batch, tokens = (2, 8) if options.tiny else (16, 128)
    weights = sum(p.numel() * p.element_size() for p in model.parameters()) / 2**30
    about = f"{options.dtype}; the weights are {weights:.1f} GiB of the peak."
    title = f"{case.name}: {batch} answers of {tokens} tokens"
    table, clock = GrowingTable("on_gpu", title, about, options), Clock(options.device)
    pictures = [[one] for one in case.pictures(batch, options.tiny)]
    first: dict[str, float] = {}
    # Random weights end their answers anywhere: sides are compared by what a step took.
    steps: list[int] = []
    # The first answers of a length also pay for the memory of a cache that grows to it.
    _generation("plain", model, processor, pictures, tokens)()  # unmeasured
    for turn, side in itertools.product((1, 2), decode_step.SIDES):
        if turn == 1 or time.monotonic() < options.end:
            run = _generation(side, model, processor, pictures, tokens)
            clock.reset_peak()
            seconds, peak = clock.seconds(lambda run=run: steps.append(run())), clock.peak()
            each = seconds / steps[-1]
            if side == "plain":
                first = {"each": each, "peak": peak}
            table.row(
                turn=str(turn),
                side=side,
                seconds=f"{seconds:.2f}",
                steps=str(steps[-1]),
                ms_per_step=f"{1000 * each:.1f}",
                by_plain=f"{each / first['each']:.2f}",
                tokens_per_s=f"{batch / each:.0f}",
                peak_GiB=f"{peak / 2**30:.1f}",
                peak_by_plain=f"{peak / first['peak']:.2f}" if peak else "",
            )
    table.close()


def _generation(
    side: str, model: Any, processor: Any, pictures: list[list[Any]], tokens: int
) -> Callable[[], int]:
    """Answers to a question about each picture, by `generate` or by ours; returns their steps."""
    questions, K = [QUESTION] * len(pictures), decode_step.ANCHOR_TOKENS
    steer = decode_step.SIDES[side]
    decoding = Decoding(anchor_tokens=K, max_new_tokens=tokens, steer=steer)

    def plain() -> int:
        inputs = prompt_inputs(model, processor, pictures, questions)
        with torch.inference_mode():
            ids = model.generate(**inputs, max_new_tokens=tokens, do_sample=False)
        answers = ids[:, inputs["input_ids"].shape[1] :]
        processor.batch_decode(answers)
        return int(answers.shape[1])

    def ours() -> int:
        return int(answer(model, processor, pictures, questions, decoding).tokens_BT.shape[1])

    return plain if side == "plain" else ours
