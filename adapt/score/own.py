"""Answers to a split of ours (`adapt/data/tables.py`), scored as the pipeline scores its own.

Percent, by the functions that the stage `evaluate` calls (`adapt.metrics.split`): chair_i, hal,
cover and cog of descriptions, pope_* of yes/no questions, colour_accuracy. `length` is words, of
all answers in words of one's own. Where nobody knows what is in a picture, no description of it is
right or wrong; a metric that nothing is known for is absent. `strict` is the same.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from adapt.metrics import chair, pope
from adapt.metrics.split import FREE, Answered, own_words, same_colours
from adapt.score.scored import Mode, Ratio, Scored, per_image


class Asked(chair.Truth, Protocol):
    """A question of the split, as much as is needed of an `adapt.data.schema.Example`."""

    @property
    def id(self) -> str: ...
    @property
    def image_id(self) -> str: ...
    @property
    def kind(self) -> str: ...
    @property
    def answer(self) -> str: ...


@dataclass(frozen=True)
class Words:
    """The words that mean an object, and those that are colours."""

    objects: Mapping[str, Sequence[str]]
    colours: Sequence[str]
    name: str

    @classmethod
    def of(cls, questions: Sequence[Asked]) -> "Words":
        """Those of a split without a vocabulary: the objects that its rows name."""
        return cls(own_words(questions), (), "the split's own names of objects")


def score(
    answers: Mapping[str, str], questions: Sequence[Asked], words: Words, mode: Mode
) -> Scored:
    """All questions that are answered, by id."""
    asked = [question for question in questions if question.id in answers]
    alone = {question.id: _answered(answers[question.id], question, words) for question in asked}
    together = Answered()
    for one in alone.values():
        together.described += one.described
        together.yes_no += one.yes_no
        together.colours += one.colours
    metrics = together.metrics()
    lengths = {q.id: len(answers[q.id].split()) for q in asked if q.kind in FREE}
    if lengths:
        metrics["length"] = sum(lengths.values()) / len(lengths)
    ratios = _ratios([(question.image_id, alone[question.id]) for question in asked])
    variant = {"benchmark": "own", "mode": mode, "words": words.name}
    return Scored(metrics, _counts(asked, together), _measured(ratios, metrics), variant)


def _answered(text: str, question: Asked, words: Words) -> Answered:
    """What one answer says, against what is there."""
    if question.kind == "describe" and question.objects is not None:
        return Answered(described=[chair.count(text, question, words)])
    if question.kind == "exists":
        pair = pope.parse_yes_no(question.answer), pope.parse_yes_no(text)
        return Answered(yes_no=[pair])
    if question.kind == "colour" and words.colours:
        return Answered(colours=[same_colours(text, question.answer, words.colours)])
    return Answered()


def _counts(asked: Sequence[Asked], together: Answered) -> dict[str, int]:
    describe = sum(question.kind == "describe" for question in asked)
    hallucinated = sum(len(one.hallucinated) for one in together.described)
    return {
        "descriptions": describe,
        "unknown": describe - len(together.described),
        "mentions": sum(len(one.mentions) for one in together.described),
        "hallucinated": hallucinated,
        **pope.confusion(together.yes_no),
        "colours": len(together.colours),
    }


def _ratios(answered: Sequence[tuple[str, Answered]]) -> dict[str, Ratio]:
    """Numerators and denominators for each image that a metric is about, in the order of ids."""
    described = [(image, one) for image, of in answered for one in of.described]
    yes_no = [(image, pair) for image, of in answered for pair in of.yes_no]
    colours = [(image, right) for image, of in answered for right in of.colours]
    tables: dict[str, list[tuple[str, tuple[int, int]]]] = {}
    for image, counts in described:
        for name, (above, below) in chair.ratios([counts]).items():
            tables.setdefault(name, []).append((image, (int(above[0]), int(below[0]))))
    for image, pair in yes_no:
        for name, fraction in pope.fractions([pair]).items():
            tables.setdefault(f"pope_{name}", []).append((image, fraction))
    tables["colour_accuracy"] = [(image, (int(right), 1)) for image, right in colours]
    return {name: _pooled(table) for name, table in tables.items()}


def _pooled(table: Sequence[tuple[str, tuple[int, int]]]) -> Ratio:
    columns = per_image(("above", "below"), sorted(table, key=lambda row: row[0]))
    return columns["above"], columns["below"]


def _measured(ratios: Mapping[str, Ratio], metrics: Mapping[str, float]) -> dict[str, Ratio]:
    return {name: of for name, of in ratios.items() if name in metrics}
