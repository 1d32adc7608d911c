"""What the settings of a params.yaml ask of a model, whether it fits, and what would.

`pairs` and `answer` decode, `train` trains; all numbers are for one process.
"""

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from adapt import params
from adapt.generation.batches import MOST, SHARE
from adapt.generation.settings import Config as AnswerConfig
from adapt.inspect import memory, training
from adapt.inspect.estimate import Estimate, Subject
from adapt.inspect.machine import Machine
from adapt.inspect.train_plan import pass_of, train_estimate
from adapt.pairs.settings import PairsConfig
from adapt.preference.settings import Config

SAVED = {"fp32": 4, "bf16": 2, "fp16": 2}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plans:
    """The sections of a params.yaml whose stages take a model."""

    pairs: PairsConfig
    answer: AnswerConfig
    train: Config

    @classmethod
    def read(cls, file: Path) -> "Plans":
        """From a file; InputError names the file and the key that is wrong."""
        return cls.of(params.read(file), str(file))

    @classmethod
    def changed(cls, file: Path, changes: Mapping[str, Any]) -> "Plans":
        """From a file with other values: of keys at the top, or of section `train` by "train.KEY".

        InputError names the key that is wrong, of the file or of the changes.
        """
        content = params.read(file)
        for key, value in changes.items():
            section, _, name = key.rpartition(".")
            place = content.setdefault(section, {}) if section else content
            if isinstance(place, dict):
                place[name] = value
        return cls.of(content, str(file))

    @classmethod
    def of(cls, content: params.Content, name: str) -> "Plans":
        """From the content of the file `name`; of a range of workers, with the fewest of them."""
        train = params.load(content, "train", Config, name)
        return cls(
            pairs=params.load(content, "pairs", PairsConfig, name),
            answer=params.load(content, "answer", AnswerConfig, name),
            train=train.at(train.worlds[0]),
        )


def estimates(subject: Subject, plans: Plans, machine: Machine) -> dict[str, Estimate]:
    """An estimate for each of these stages.

    Raises InputError where a setting does not fit the model, naming the key.
    """
    answer_tokens = plans.answer.max_new_tokens
    return {
        "pairs": _decoding(subject, plans.pairs, plans.pairs.samples, "pairs", machine),
        "answer": _decoding(subject, plans.answer, 1, "answer", machine),
        "train": train_estimate(subject, plans.train, answer_tokens, machine),
    }


def memory_facts(subject: Subject, plans: Plans, machine: Machine) -> dict[str, Any]:
    """The estimates as they are reported."""
    stages = {
        name: {**dataclasses.asdict(one), "total": one.total, "fits": one.fits}
        for name, one in estimates(subject, plans, machine).items()
    }
    where = {"name": machine.name, "bytes": machine.memory}
    return {"machine": where, "stages": stages, "disk": disk(subject, plans, machine)}


def disk(subject: Subject, plans: Plans, machine: Machine) -> dict[str, int]:
    """Bytes of a checkpoint, of those that are kept at once, and of the result.

    Ray keeps two and writes a third; the loop in this process keeps one and writes another.
    """
    config, saved = plans.train, SAVED.get(plans.train.save_dtype, subject.stored.itemsize)
    plan = pass_of(subject, config, plans.answer.max_new_tokens, machine)
    one = training.checkpoint(subject.sizes, plan)
    one += memory.FP32 * plan.trained if config.validation else 0  # the best weights so far
    kept = one * (3 if config.workers else 2)
    return {"checkpoint": one, "kept": kept, "result": memory.weights(subject.sizes, saved)}


def _decoding(
    subject: Subject, config: PairsConfig | AnswerConfig, samples: int, stage: str, machine: Machine
) -> Estimate:
    each, limit = machine.generation.itemsize, machine.limit(1)

    def of(batch: int) -> dict[str, int]:
        plan = memory.Decoding(
            rows=batch * samples,
            answer=config.max_new_tokens,
            anchor_tokens=config.anchor.anchor_tokens,
            each=each,
            is_sampled=samples > 1,
        )
        return memory.decoding(subject.sizes, plan)

    if config.batch == "auto":
        weights = memory.total(of(0))
        answer = memory.total(of(1)) - weights
        batch = max(min(int(SHARE * (limit - weights)) // answer, MOST // samples), 1)
        known: dict[str, int] = {}
    else:
        batch = config.batch
        largest = _largest(lambda rows: memory.total(of(rows)) <= limit, batch)
        known = {f"{stage}.batch": largest} if 0 < largest < batch else {}
    what = f"{batch * samples} answers of {config.max_new_tokens} tokens at once"
    return Estimate(what=what, parts=of(batch), limit=limit, advice=known)


def _largest(fits: Callable[[int], bool], most: int) -> int:
    """The largest number up to `most` that fits, 0 for none; what fits, fits with less.

    >>> _largest(lambda n: n * 3 <= 20, 64)
    6
    """
    low, high = 0, most + 1
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low
