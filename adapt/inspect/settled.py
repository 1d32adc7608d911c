"""What keys of section `train` become that depend on the card: `auto` of `accumulation` and
`gradient_checkpointing`.

The mildest that fits, by the plan's own arithmetic and in its order (`smaller_passes`). It is
worked out where the card is, in every worker, from the longest prompt and answer among the rows and
from their widest pictures; cards may differ, and the smallest one decides for all. On CPUs it is
one pass, and nothing is computed twice.
"""

import dataclasses
import sys
from pathlib import Path

import torch
import torch.distributed as dist
from PIL import Image

from adapt.attention.layout import layout_of
from adapt.inspect.estimate import Subject, structure, subject_of
from adapt.inspect.machine import GIB, Machine, machine
from adapt.inspect.train_plan import first_that_fits, peak, smaller_passes
from adapt.models.load import load_config, load_processor
from adapt.models.prompts import encode
from adapt.names import one_line
from adapt.preference.settings import Config
from adapt.preference.survey import Facts


def settle(config: Config, base: Path, facts: Facts, device: torch.device) -> Config:
    """The settings of one worker, none of them open any more.

    `facts`: of the rows that are trained on. Where nothing fits, the smallest passes are tried, and
    a line says so.
    """
    place = machine(device)
    if not config.left_open or not place.is_gpu:
        return config
    subject, choices = _subject(base, facts), [*smaller_passes(config, config.left_open)]
    found = first_that_fits(subject, config, facts.answer, place, choices)
    number = len(choices) - 1 if found is None else choices.index(found)
    if found is None:
        smallest = config.model_copy(update=choices[-1])
        _warn(peak(subject, smallest, facts.answer, place), place)
    return config.model_copy(update=choices[_most(number, device)])


def _subject(base: Path, facts: Facts) -> Subject:
    """The base by its configuration, and the largest prompt and pictures that come to it."""
    model, pictures = structure(str(base), load_config(str(base))), map(_grey, facts.sizes)
    inputs = encode(load_processor(base), [[*pictures]], ["?"])
    subject = subject_of(str(base), model, inputs, layout_of(model, inputs), is_stored=True)
    return dataclasses.replace(
        subject,
        sizes=dataclasses.replace(subject.sizes, prompt=facts.prompt),
        shares=lambda length: not facts.apart and subject.shares(length),
    )


def _grey(size: tuple[int, int]) -> Image.Image:
    return Image.new("RGB", size, "grey")


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
