"""What keys of section `train` become that depend on the card: `auto` of `accumulation` and
`gradient_checkpointing`.

The mildest that fits, by the plan's own arithmetic: one pass, then smaller ones, then smaller ones
whose activations are computed again. It is worked out where the card is, in every worker, from the
longest prompt and answer among the rows and from their widest pictures; cards may differ, and the
smallest one decides for all. On CPUs it is one pass, and nothing is computed twice.
"""

import dataclasses
import sys
from collections.abc import Collection
from pathlib import Path

import torch
import torch.distributed as dist

from adapt.attention.layout import layout_of
from adapt.data.pictures import open_picture
from adapt.inspect.estimate import Subject, structure, subject_of
from adapt.inspect.machine import GIB, Machine, machine
from adapt.inspect.train_plan import first_that_fits, peak, smaller_passes
from adapt.models.load import load_config, load_processor
from adapt.models.prompts import encode
from adapt.names import one_line
from adapt.pairs.table import Pair, read_pairs
from adapt.preference.settings import Config
from adapt.preference.survey import Facts


def settle(
    config: Config,
    left_open: Collection[str],
    base: Path,
    pairs: Path,
    facts: Facts,
    device: torch.device,
) -> Config:
    """The settings of one worker, all of them: `left_open` are the keys to find.

    `facts`: of the rows that are trained on. Where nothing fits, the smallest passes are tried, and
    a line says so.
    """
    place = machine(device)
    if not left_open or not place.is_gpu:
        return config
    subject = _subject(base, read_pairs(pairs)[facts.widest], facts)
    choices = [*smaller_passes(config, left_open)]
    found = first_that_fits(subject, config, facts.answer, place, choices)
    number = len(choices) - 1 if found is None else choices.index(found)
    smallest = config.model_copy(update=choices[-1])
    if found is None:
        _warn(peak(subject, smallest, facts.answer, place), place)
    return config.model_copy(update=choices[_most(number, device)])


def _subject(base: Path, row: Pair, facts: Facts) -> Subject:
    """The base by its configuration, and the largest prompt and pictures that come to it."""
    model = structure(str(base), load_config(str(base)))
    pictures = [open_picture(content) for content in row.images]
    inputs = encode(load_processor(base), [pictures], [row.question], histories=[row.history])
    subject = subject_of(str(base), model, inputs, layout_of(model, inputs), is_stored=True)
    sizes = dataclasses.replace(
        subject.sizes, prompt=facts.prompt, image_tokens=max(facts.picture, 1)
    )
    return dataclasses.replace(subject, sizes=sizes)


def _most(number: int, device: torch.device) -> int:
    """The largest of all workers' numbers: passes have to be the same for all."""
    if not dist.is_initialized():
        return number
    numbers = torch.tensor(number, device=device)
    dist.all_reduce(numbers, op=dist.ReduceOp.MAX)
    return int(numbers)


def _warn(needed: int, place: Machine) -> None:
    problem = f"the smallest passes would take {needed / GIB:.1f} GiB of {place.name}"
    room = f"which has {place.memory / GIB:.1f}; trying them"
    advice = "python -m adapt.inspect MODEL --plan says what would fit"
    print(one_line(f"train: {problem}, {room}. {advice}"), file=sys.stderr)
