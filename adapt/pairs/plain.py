"""Plain rows: questions with one answer, on which training keeps what the base knew.

Preference pairs of one kind of question take something from the answers to others. Training on some
of the others beside them is rehearsal, the oldest remedy against forgetting (Robins 1995,
"Catastrophic forgetting, rehearsal and pseudorehearsal"); with preferences it is InstructGPT's
PPO-ptx (arXiv 2203.02155).

Stage `pairs` chooses the rows (`pairs.keep`) and writes them to `plain.parquet`, a split file of
evaluation rows (`adapt/data/columns.py`), so that stage `train` depends on them as on its pairs. A
file of the user's lies outside the graph: `report.json` has its digest, and the flow looks whether
that still holds.
"""

import hashlib
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import Any

from adapt.data.schema import SPLITS, Example
from adapt.data.tables import Writer, kind_of_file, read_split
from adapt.pairs.groups import GROUP_BYTES
from adapt.pairs.selected import Some, lot, say
from adapt.pairs.settings import KeepConfig, PairsConfig
from adapt.params import InputError, require

NAME = "plain.parquet"


def plain_rows(config: PairsConfig, train: Path, paired: Iterable[str]) -> Sequence[Example]:
    """The rows to keep, in the order of their file; none with `pairs.keep.images: 0`.

    `train` is the training split, `paired` are the ids of its pictures that pairs are about, in
    this round or another: those left come first, because they are new to training. Which ones is a
    matter of each picture's id, so that new pictures leave most of the choice. A training split
    without such rows keeps none and says so; a file of its own is refused by InputError.
    """
    keep = config.keep
    if keep.images == 0:
        return ()
    rows = _asked(keep, train)
    suited = [
        (place, row.image_id) for place, row in enumerate(rows) if _is_suited(row, keep.kinds)
    ]
    if not suited and not keep.path:
        say(f"no rows are kept: {_none_suited(keep, rows, train)}")
        return ()
    require(bool(suited), "pairs.keep.kinds", _none_suited(keep, rows, keep.file or train))
    # A file of its own has other pictures than the training split.
    used = set() if keep.path else {*paired}
    ids = {identity for _, identity in suited}
    order = sorted(ids, key=lambda identity: (identity in used, lot(config.seed, identity)))
    taken = {*order[: keep.images]}
    found = Some(rows, [place for place, identity in suited if identity in taken])
    if keep.path:
        _check_apart(keep.path, found, train.parent)
    _say(len(taken), len(taken & used), keep.images)
    return found


def write_plain(path: Path, rows: Sequence[Example]) -> None:
    """A split file of these rows, also of none; small row groups, for rows at random."""
    several = any(len(row.images) != 1 for row in rows)
    with Writer(path, "evaluation", several, GROUP_BYTES) as writer:
        for row in rows:
            writer.write(row)


def described(config: PairsConfig, rows: Sequence[Example]) -> dict[str, Any]:
    """What `report.json` says of the rows; empty where none were asked for."""
    if not rows:
        return {}
    file, kinds = config.keep.file, Counter(row.kind for row in rows)
    counts = {"rows": len(rows), "pictures": len({row.image_id for row in rows})}
    made_of = {} if file is None else {"path": config.keep.path, "sha256": _sha256(file)}
    return {"keep": {**counts, "kinds": dict(sorted(kinds.items())), **made_of}}


def _asked(keep: KeepConfig, train: Path) -> Sequence[Example]:
    """The rows that are chosen from; those of preferences have no answer that is simply right."""
    path, rows = keep.file, read_split(train)
    if path is None:
        return rows if kind_of_file(train) == "evaluation" else ()
    try:
        rows, kind = read_split(path), kind_of_file(path)
        len(rows)  # reads the texts
    except InputError as error:
        raise InputError(f"pairs.keep.path: {error}") from None
    problem = f"{path} holds preferences, not rows with an answer"
    require(kind == "evaluation", "pairs.keep.path", problem)
    return rows


def _check_apart(path: str, rows: Sequence[Example], splits: Path) -> None:
    """What models are chosen and judged by is not trained on, also where it comes another way."""
    files = {name: splits / f"{name}.parquet" for name in SPLITS if name != "train"}
    judged = {
        hashlib.sha256(content).digest(): name
        for name, file in files.items()
        if file.exists()
        for row in read_split(file)
        for content in row.images
    }
    for row in rows:
        where = (judged.get(hashlib.sha256(content).digest()) for content in row.images)
        split = next(filter(None, where), None)
        problem = f"{path}: {row.id} is about a picture of the {split} split; take it out"
        require(split is None, "pairs.keep.path", problem)


def _is_suited(row: Example, kinds: Collection[str]) -> bool:
    return row.kind in kinds and bool((row.answer or "").strip())


def _none_suited(keep: KeepConfig, rows: Sequence[Example], path: Path) -> str:
    there = ", ".join(sorted({str(row.kind) for row in rows if (row.answer or "").strip()}))
    nothing = "none of any kind" if rows else "preferences alone"
    wanted = f"{path} has no {' or '.join(keep.kinds)} questions with an answer"
    return f"{wanted}; it has {there or nothing}"


def _say(taken: int, again: int, asked: int) -> None:
    """Which pictures they are about."""
    fewer = f", all that there are ({asked} were asked for)" if taken < asked else ""
    both = f"; {again} of them have pairs as well" if again else ""
    say(f"rows with one answer about {taken} pictures are kept{fewer}{both}")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
