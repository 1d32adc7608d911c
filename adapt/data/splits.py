"""Splits from a folder or from the drawn world: read, validated, written.

Rows that are refused are kept in quarantine with their reasons.
"""

import json
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from adapt.data import scenes
from adapt.data.schema import (
    SPLITS,
    Example,
    Vocabulary,
    read_vocabulary,
    write_vocabulary,
)
from adapt.data.settings import Config
from adapt.data.tables import read_rows, write_split
from adapt.data.validation import RowError, validate_rows
from adapt.params import InputError, require
from adapt.progress import track

Rejected = list[tuple[RowError, Mapping[str, Any]]]


def build(config: Config, workspace: Path, splits: Path) -> dict[str, float]:
    """Draw or read, validate, and write the folder `splits`; returns how much is in it.

    Rejected rows go to `quarantine/data.jsonl` of the workspace.
    """
    with _source_folder(config, workspace) as folder:
        vocabulary = read_vocabulary(folder / "vocabulary.json")
        accepted, rejected = _validated(folder, vocabulary)
    rows = len(rejected) + sum(map(len, accepted.values()))
    _report_rejected(rejected, rows, config.max_rejected, workspace / "quarantine" / "data.jsonl")
    _check_splits(accepted, folder)
    splits.mkdir()
    if vocabulary is not None:
        write_vocabulary(splits / "vocabulary.json", vocabulary)
    for split, examples in accepted.items():
        write_split(splits / f"{split}.parquet", examples)
    return _metrics(accepted, len(rejected))


@contextmanager
def _source_folder(config: Config, workspace: Path) -> Iterator[Path]:
    """The folder to read: the user's, or one that the drawn world is written to."""
    if config.source != "scenes":
        folder = workspace / config.source
        problem = f"folder {config.source} not found (or scenes)"
        require(folder.is_dir(), "params.yaml: data.source", problem)
        yield folder
        return
    with tempfile.TemporaryDirectory(prefix="adapt-scenes-") as temporary:
        folder = Path(temporary)
        write_vocabulary(folder / "vocabulary.json", scenes.vocabulary())
        for split in SPLITS:
            rows = list(scenes.drawn(config.scenes, split, config.seed))
            write_split(folder / f"{split}.parquet", rows)
        yield folder


def _validated(
    folder: Path, vocabulary: Vocabulary | None
) -> tuple[dict[str, list[Example]], Rejected]:
    """Accepted examples by split, and rejected rows with their errors."""
    accepted: dict[str, list[Example]] = {split: [] for split in SPLITS}
    rejected: Rejected = []
    ids: set[str] = set()
    for split in SPLITS:
        file = folder / f"{split}.parquet"
        rows = read_rows(file)
        checked = validate_rows(rows, file=file, vocabulary=vocabulary, ids=ids)
        results = track(checked, f"validating {split}", total=len(rows))
        for row, result in zip(rows, results, strict=True):
            if isinstance(result, RowError):
                rejected.append((result, row))
            else:
                accepted[split].append(result)
    return accepted, rejected


def _report_rejected(rejected: Rejected, rows: int, max_rejected: float, quarantine: Path) -> None:
    """Write the quarantine file anew; stop when too many rows are in it, else warn."""
    quarantine.unlink(missing_ok=True)
    if not rejected:
        return
    quarantine.parent.mkdir(parents=True, exist_ok=True)
    lines = [_quarantine_line(error, row) for error, row in rejected]
    quarantine.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    others = f" and {len(rejected) - 1} more" if len(rejected) > 1 else ""
    message = f"{rejected[0][0]}{others}, of {rows} rows; all in {quarantine}"
    if len(rejected) > max_rejected * rows:
        raise InputError(f"{message} (data.max_rejected is {max_rejected:g})")
    print(f"adapt data: warning: left out {message}", file=sys.stderr)


def _quarantine_line(error: RowError, row: Mapping[str, Any]) -> str:
    values = {key: value for key, value in row.items() if key != "images"}
    values["images"] = [{"path": (image or {}).get("path")} for image in row["images"] or ()]
    place = {"file": str(error.file), "row": error.row, "id": error.row_id}
    line = {**place, "reason": error.reason, "values": values}
    return json.dumps(line, ensure_ascii=False)


def _check_splits(accepted: Mapping[str, list[Example]], folder: Path) -> None:
    """Every split has rows, and no image is in two of them."""
    split_of: dict[str, str] = {}
    for split, examples in accepted.items():
        file = str(folder / f"{split}.parquet")
        require(bool(examples), file, "no valid rows")
        for example in examples:
            first = split_of.setdefault(example.image_id, split)
            row = f"image_id {example.image_id} (row id {example.id})"
            require(first == split, file, f"{row} is also in {first}.parquet")


def _metrics(accepted: Mapping[str, list[Example]], rejected: int) -> dict[str, float]:
    # No image is in two splits, so that one dictionary holds all of them.
    objects = {e.image_id: len(e.objects or ()) for part in accepted.values() for e in part}
    images = {split: len({e.image_id for e in part}) for split, part in accepted.items()}
    return {
        **{f"{split}/images": float(count) for split, count in images.items()},
        **{f"{split}/rows": float(len(part)) for split, part in accepted.items()},
        "rejected": float(rejected),
        "objects_per_image": sum(objects.values()) / len(objects),
    }
