"""Which split a row goes to, and which rows cannot stay: what needs all rows to be known.

A picture is in one split only, with everything that looks like it: rows of one `image_id`, rows
with the same picture, and near-duplicates (`adapt/data/likeness.py`) form a group, and a group is
not parted. Splits that the source gives, in a column or in the names of its files, are kept. What
it does not give is cut from its training rows and from those without a split: a group's place
follows from a hash of its first picture and the seed, so that rows which are added move no others.

A picture that the source gives to two splits stays in the one that is for measuring; elsewhere its
rows are refused, because a model must not learn from what it is measured on. Pictures that only
look alike stay where they are given, and are told: likeness is a guess, a given split is not.
"""

import posixpath
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from adapt.data.importing.cutting import RANK, placed
from adapt.data.importing.rows import Verdict
from adapt.data.schema import SPLITS
from adapt.data.settings import Size
from adapt.params import InputError, shown

NAMES = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("validation", "valid", "val", "dev"), "validation"),
    **dict.fromkeys(("test", "testing"), "test"),
}
"""What people call splits."""


@dataclass(frozen=True, kw_only=True)
class Decided:
    """The split of every row, "" for refused ones, and what was found on the way.

    `reasons` are of rows that their own checks had accepted. `cut` are the splits that the source
    does not give. `alike` is the number of pictures that look like an earlier one, `leaks` that of
    groups of such pictures which are in several given splits.
    """

    splits: list[str]
    reasons: dict[int, str]
    cut: tuple[str, ...]
    pictures: int
    alike: int
    leaks: list[str]


def decide(
    verdicts: Sequence[Verdict],
    alike: Sequence[tuple[bytes, bytes]],
    sizes: Mapping[str, Size],
    seed: int,
) -> Decided:
    """Put accepted rows into splits; `alike` are pairs of pictures that look like each other."""
    # 1. The splits that the source gives, and ids that come twice.
    given, reasons = _given(verdicts)
    reasons |= _repeated(verdicts, reasons)
    # 2. Pictures that it gives to two splits.
    reasons |= _leaked(verdicts, given, reasons)
    # 3. Groups of what must stay together, and where they go.
    rows = [i for i, v in enumerate(verdicts) if not v.reason and i not in reasons]
    groups = _groups(verdicts, rows, alike)
    cut = tuple(s for s in SPLITS[1:] if s not in given)
    splits = [""] * len(verdicts)
    for row, split in placed(verdicts, groups, given, {s: sizes[s] for s in cut}, seed):
        splits[row] = split
    pictures = {one for row in rows for one in verdicts[row].pictures}
    return Decided(
        splits=splits,
        reasons=reasons,
        cut=cut,
        pictures=len(pictures),
        alike=sum(pictures.issuperset(pair) for pair in alike),
        leaks=_lookalikes(verdicts, groups, splits),
    )


# ---- what the source says ------------------------------------------------------------------------


def split_of_file(name: str) -> str:
    """The split that a file's name gives to its rows, or "".

    >>> split_of_file("train.jsonl"), split_of_file("data/val-00000-of-00002.parquet")
    ('train', 'validation')
    >>> split_of_file("test/rows.csv"), split_of_file("testament.json"), split_of_file("rows.json")
    ('test', '', '')
    """
    folder, file = posixpath.split(name.lower())
    words = [re.split(r"[-_. ]", file)[0], *reversed(folder.split("/"))]
    return next((NAMES[word] for word in words if word in NAMES), "")


def _given(verdicts: Sequence[Verdict]) -> tuple[list[str], dict[int, str]]:
    """The split that each row comes with, "" for none; and rows with a split nobody knows."""
    of_file: dict[str, str] = {}
    given, reasons = [], {}
    for row, one in enumerate(verdicts):
        if one.file not in of_file:
            of_file[one.file] = split_of_file(one.file)
        split = NAMES.get(one.split.strip().lower(), "") if one.split else of_file[one.file]
        if one.split and not split and not one.reason:
            reasons[row] = f"split: {shown(one.split)} is none of {', '.join(SPLITS)}"
        given.append(split)
    return given, reasons


def _repeated(verdicts: Sequence[Verdict], refused: Mapping[int, str]) -> dict[int, str]:
    """Rows with the id of an earlier row."""
    first: dict[str, int] = {}
    reasons = {}
    for row, one in enumerate(verdicts):
        if one.reason or row in refused:
            continue
        before = first.setdefault(one.id, row)
        if before != row:
            where = _place(verdicts[before])
            is_same = one.said == verdicts[before].said
            reasons[row] = f"is the same as {where}" if is_same else f"id: is also that of {where}"
    return reasons


def _leaked(
    verdicts: Sequence[Verdict], given: Sequence[str], refused: Mapping[int, str]
) -> dict[int, str]:
    """Rows of a picture that the source also gives to a split which is for measuring."""
    highest: dict[str | bytes, int] = {}
    rows = [i for i, v in enumerate(verdicts) if given[i] and not v.reason and i not in refused]
    for row in rows:
        for name in _names(verdicts[row]):
            other = highest.setdefault(name, row)
            if RANK[given[other]] < RANK[given[row]]:
                highest[name] = row
    reasons = {}
    for row in rows:
        for name in _names(verdicts[row]):
            other = highest[name]
            if given[other] != given[row]:
                what = "image" if isinstance(name, bytes) else f"image_id {name}"
                reasons[row] = f"{what}: is also in {given[other]} ({_place(verdicts[other])})"
                break
    return reasons


def _names(verdict: Verdict) -> Iterable[str | bytes]:
    """What rows of one picture share."""
    return (verdict.image_id, *verdict.pictures)


def _place(verdict: Verdict) -> str:
    return f"{verdict.file}: row {verdict.row}"


# ---- groups --------------------------------------------------------------------------------------


def _groups(
    verdicts: Sequence[Verdict], rows: Sequence[int], alike: Sequence[tuple[bytes, bytes]]
) -> list[list[int]]:
    """Rows that share a picture, or have pictures that look alike; in the order of the source."""
    parent: dict[Any, Any] = {}

    def root(name: Any) -> Any:
        path = []
        while (above := parent.setdefault(name, name)) != name:
            path.append(name)
            name = above
        for one in path:
            parent[one] = name
        return name

    for row in rows:
        for name in _names(verdicts[row]):
            parent[root(name)] = root(row)
    for one, other in alike:
        parent[root(one)] = root(other)
    groups: dict[Any, list[int]] = {}
    for row in rows:
        groups.setdefault(root(row), []).append(row)
    return list(groups.values())


def _lookalikes(
    verdicts: Sequence[Verdict], groups: Sequence[Sequence[int]], splits: Sequence[str]
) -> list[str]:
    """A line for each group that given splits part."""
    found = []
    for rows in groups:
        first = {splits[row]: row for row in reversed(rows)}
        if len(first) > 1:
            places = [f"{_place(verdicts[row])} ({splits[row]})" for row in sorted(first.values())]
            found.append(" and ".join(places))
    return found


def require_rows(verdicts: Sequence[Verdict], decided: Decided, source: str) -> None:
    """Every split has rows, and they are of one kind; else InputError."""
    kinds: dict[str, set[str]] = {split: set() for split in SPLITS}
    for one, split in zip(verdicts, decided.splits, strict=True):
        if split:
            kinds[split].add(one.kind)
    for split, found in kinds.items():
        if not found:
            how = "to cut it from" if split in decided.cut else "in it"
            raise InputError(f"{source}: split {split}: no valid rows {how}")
        if len(found) > 1:
            raise InputError(f"{source}: split {split} has preferences and evaluation rows")
