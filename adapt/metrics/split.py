"""What the answers to a split's questions come to: descriptions, yes/no, and colour questions.

`adapt.evaluation.judge` judges the pipeline's answers by these figures, and `adapt.score own`
answers in a file. Percent; a metric that nothing is known for is absent.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from adapt.metrics import chair, pope
from adapt.metrics.mentions import named

FREE = ("describe", "other")
"""Kinds of questions that are answered in words of one's own."""


@dataclass
class Answered:
    """Answers by kind of question, as far as their truth is known.

    `described` are descriptions of pictures whose objects are known; `yes_no` pairs of what is
    right and what was said; `colours` whether each answer was right.
    """

    described: list[chair.Counts] = field(default_factory=list)
    yes_no: list[tuple[bool, bool]] = field(default_factory=list)
    colours: list[bool] = field(default_factory=list)

    def metrics(self) -> dict[str, float]:
        """Of all answers together.

        >>> Answered(yes_no=[(True, True)], colours=[True, False]).metrics()["colour_accuracy"]
        50.0
        """
        metrics = chair.aggregate(self.described)
        if self.yes_no:
            labels, said = zip(*self.yes_no, strict=True)
            yes_no = pope.aggregate(labels, said)
            metrics |= {f"pope_{name}": value for name, value in yes_no.items()}
        if self.colours:
            metrics["colour_accuracy"] = chair.percent(sum(self.colours), len(self.colours))
        return metrics


def same_colours(answer: str, reference: str, colours: Sequence[str]) -> bool:
    """Whether an answer names the colours that the right one names, and no others."""
    return named(answer, colours) == named(reference, colours)


def own_words(truths: Iterable[chair.Truth]) -> dict[str, tuple[str, ...]]:
    """The names of all objects that rows list, each a word of its own, also in the plural."""
    names: set[str] = set()
    for truth in truths:
        names |= {thing.name for thing in truth.objects or ()}
        names.update(truth.absent or ())
    return {name: (name, *({f"{name}s"} - names)) for name in sorted(names)}
