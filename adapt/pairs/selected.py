"""Which rows of the training split the pairs stage takes, and what it says of the others."""

import hashlib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from adapt.data.schema import Example, Vocabulary
from adapt.data.tables import kind_of_file, read_preferences, read_split
from adapt.names import one_line
from adapt.pairs.rank import unrankable
from adapt.pairs.sample import chosen_rows
from adapt.pairs.settings import PairsConfig
from adapt.params import InputError


def decided(config: PairsConfig, train: Path) -> str:
    """The source, where it is `auto` by what the training split holds."""
    holds = kind_of_file(train)
    if config.source == "auto":
        return "given" if holds == "preference" else "sample"
    if config.source in ("given", "both") and holds == "evaluation":
        problem = f"{config.source} needs preference data, and {train} holds questions"
        raise InputError(f"pairs.source: {problem}; set it to sample or auto")
    return config.source


def given_rows(config: PairsConfig, train: Path) -> Sequence[Any]:
    """The preference rows of the split, or `limit` of them at random, in their order.

    Which ones is a matter of each row's id, so that new rows leave most of the choice.
    """
    rows = read_preferences(train)
    if not config.limit or config.limit >= len(rows):
        say(f"all {len(rows)} given pairs")
        return rows
    ids = [row.id for row in rows]
    drawn = sorted(range(len(ids)), key=lambda i: lot(config.seed, ids[i]))[: config.limit]
    say(f"{config.limit} of {len(rows)} given pairs, drawn at random (pairs.limit)")
    return Some(rows, sorted(drawn))


def lot(seed: int, identity: str) -> bytes:
    """The place of a row or a picture in a random order, which others do not change."""
    return hashlib.sha256(f"{seed} {identity}".encode()).digest()


class Some(Sequence[Any]):
    """Some rows of a sequence, read from it when they are asked for."""

    def __init__(self, rows: Sequence[Any], places: Sequence[int]) -> None:
        self._rows, self._places = rows, places

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, index: Any) -> Any:
        """A row, or some of these."""
        if isinstance(index, slice):
            return [self._rows[place] for place in self._places[index]]
        return self._rows[self._places[index]]


def asked_rows(
    config: PairsConfig, train: Path, vocabulary: Vocabulary | None
) -> tuple[list[Example], list[str]]:
    """The questions to sample answers to, about some of the pictures.

    Also the ids of the pictures that `pairs.skip` leaves to other rounds.
    """
    rows = ranked_rows(config, train, vocabulary)
    return chosen_rows(rows, config.images, config.seed, config.skip)


def ranked_rows(config: PairsConfig, train: Path, vocabulary: Vocabulary | None) -> list[Example]:
    """The questions of these kinds whose answers can be ranked; InputError where there are none."""
    rows = [row for row in read_split(train) if row.kind in config.kinds]
    if not rows:
        kinds = " or ".join(config.kinds)
        raise InputError(f"pairs.kinds: the training split has no {kinds} questions")
    reasons = [unrankable(row, vocabulary) for row in rows]
    ranked = [row for row, reason in zip(rows, reasons, strict=True) if not reason]
    if not ranked:
        advice = "set pairs.source to given, or bring what is there"
        raise InputError(f"pairs.source: answers cannot be ranked: {reasons[0]}; {advice}")
    if len(ranked) < len(rows):
        reason = next(filter(None, reasons))
        say(f"{len(rows) - len(ranked)} of {len(rows)} questions left out: {reason}")
    return ranked


def say(*lines: str) -> None:
    """Tell the user."""
    for line in lines:
        print(one_line(f"pairs: {line}"), file=sys.stderr)
