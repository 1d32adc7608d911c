"""`train.validation`: what each checkpoint makes up about known pictures, and the best of them all.

Before the first step and at every checkpoint the workers describe pictures of the validation split,
each its share of them, greedily and without steering. What they make up is counted as stage
`evaluate` counts it, and becomes points of the curves `validation/hal`, `validation/chair_i` and
`validation/cover`. Of all checkpoints the result is the one with the lowest Hal among those that
keep the Cover of the base (`adapt/generation/choosing.py`). Of equal ones it is the later, which
has learned more.

What decides lies in the trainer's history, and the best weights so far in every checkpoint beside
its own (`adapt/preference/best.py`). So a run that was cut off goes on to the same choice, with
however many workers. How many descriptions are made at once shows in the last digits of what is
compared, as everywhere. Training itself does not notice: its steps are the same to the bit.
"""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from accelerate.utils import gather_object

from adapt.data.lots import drawn
from adapt.data.schema import Example, Vocabulary
from adapt.data.tables import read_split
from adapt.generation.answer import Decoding
from adapt.generation.batches import answered, asked, fitting, prompt_of, some
from adapt.generation.choosing import best
from adapt.generation.known import Known, described
from adapt.metrics.chair import Counts, aggregate, count
from adapt.params import require
from adapt.preference.best import Best
from adapt.preference.reference import in_batches
from adapt.preference.settings import Config

POINTS = "validation/"
FIGURES = ("hal", "chair_i", "cover")
AT_ONCE = 16  # descriptions at most, however many workers: padding shows in the last digits
Entry = Mapping[str, Any]  # of the trainer's history


def known(config: Config, splits: Path | None) -> Known | None:
    """What there is to validate on, None without `train.validation`; InputError for nothing."""
    if not config.validation:
        return None
    assert splits is not None, "validation is above 0"
    found = Known.of(splits)
    problem = f"nobody knows what is in the pictures that {found.file} asks to describe"
    advice = "set it to 0, for the last checkpoint"
    require(len(found.rows) > 0, "train.validation", f"{problem}; {advice}")
    return found


@dataclasses.dataclass(frozen=True, kw_only=True)
class Validation:
    """What the processes share to describe, and where the first one keeps the best weights.

    Args:
        rows: questions for descriptions of known pictures. words: which ones mean an object.
        length: of the longest answer, in tokens.
    """

    rows: Sequence[Example]
    words: Vocabulary
    length: int
    best: Best

    @classmethod
    def of(cls, config: Config, split: Path, words: Vocabulary, folder: Path) -> "Validation":
        """That of a configuration; `split` is the file of the validation split.

        `folder` is one that this process may write in.
        """
        rows = drawn(described(read_split(split)), config.validation, config.seed)
        return cls(rows=rows, words=words, length=config.max_new_tokens, best=Best(folder))

    def figures(
        self, model: Any, processor: Any, accelerator: Any, is_divided: bool
    ) -> dict[str, float]:
        """Points of the curves, percent; all processes take part and have the same.

        `is_divided`: the processes share one model. Where the memory of one does not suffice then,
        that ends all: to try again with half as much, it would have to make passes alone.
        """
        decoding = Decoding(anchor_tokens=1, max_new_tokens=self.length)

        def worked(places: range) -> list[Counts]:
            rows = [self.rows[place] for place in places]
            if is_divided:
                said = asked(model, processor, rows, decoding, prompt_of).texts
            else:
                with_batch = (len(rows), prompt_of, "train.validation")
                found = answered(model, processor, rows, decoding, *with_batch)
                said = [text for _, answers in found for text in answers.texts]
            pairs = zip(said, rows, strict=True)
            return [count(text, row, self.words) for text, row in pairs]

        # As many at once as fit at every process: all have to make the same passes.
        prompts = [prompt_of(row) for row in some(self.rows)]
        size = min(AT_ONCE, *gather_object([fitting(model, processor, prompts, decoding)]))
        counts = in_batches(len(self.rows), size, accelerator, "validation", worked)
        measured = aggregate(counts)
        return {POINTS + name: measured[name] for name in FIGURES if name in measured}


# ---- the choice ------------------------------------------------------------------------------


def is_point(entry: Entry) -> bool:
    """Whether an entry of the history has figures of a validation."""
    return f"{POINTS}hal" in entry


def best_of(history: Iterable[Entry]) -> Entry | None:
    """The entry of the best checkpoint; None where none was validated.

    The first point is the base, before the first step.

    >>> figures = [(0, 9.0, 50.0), (3, 8.0, 60.0), (6, 7.0, 50.0), (9, 7.0, 49.5), (12, 1.0, 9.0)]
    >>> names = ("step", "validation/hal", "validation/cover")
    >>> best_of([{"step": 1, "loss": 2.0}, *(dict(zip(names, one)) for one in figures)])["step"]
    9
    """
    base, *checkpoints = [entry for entry in history if is_point(entry)] or [{}]
    if not checkpoints:
        return None
    later = checkpoints[::-1]  # of equal ones `best` takes the first
    return later[best([_figures(entry) for entry in later], _figures(base))]


def chosen(history: Iterable[Entry]) -> dict[str, float]:
    """Which step's weights are the result, and its figures; nothing where none was validated.

    Under other names than the curves, whose last point may be another.

    >>> history = [{"step": step, "validation/hal": 9.0 - step} for step in (0, 3)]
    >>> chosen(history)
    {'best/step': 3.0, 'best/hal': 6.0}
    """
    found = best_of(history)
    if found is None:
        return {}
    named = {"step": float(found["step"]), **_figures(found)}
    return {f"best/{name}": value for name, value in named.items()}


def _figures(entry: Entry) -> dict[str, float]:
    return {name.removeprefix(POINTS): entry[name] for name in entry if name.startswith(POINTS)}
