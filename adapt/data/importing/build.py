"""Stage `data` on a source that somebody brings: checked, split, and written as split files."""

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from itertools import zip_longest
from pathlib import Path
from typing import Any

from adapt.data.columns import Kind
from adapt.data.disk import told
from adapt.data.importing import quarantine, splitting
from adapt.data.importing.checking import Checker
from adapt.data.importing.quarantine import Refused
from adapt.data.importing.rows import Verdict
from adapt.data.importing.splitting import Decided
from adapt.data.importing.survey import VOCABULARY, Survey, open_source, survey
from adapt.data.schema import SPLITS, write_vocabulary
from adapt.data.settings import Config
from adapt.data.tables import Writer
from adapt.names import one_line
from adapt.params import InputError
from adapt.progress import track


def build(
    config: Config, workspace: Path, out: Path, rejected: Path | None = None
) -> dict[str, float]:
    """Import `data.source` into the folder `out`: `splits/` and `source.json`; returns figures.

    Refused rows go to the file `rejected`, else `quarantine/data.jsonl` of the workspace; too many
    of them, or none left for a split, are an InputError.
    """
    rejected = rejected or workspace / quarantine.FILE
    # 1. What the source is, and what each of its rows is.
    source, recognised = open_source(config, workspace)
    print(one_line(f"adapt data: {source.named} has format {recognised.format}: {recognised.why}"))
    # Before its rows are read: what is added meanwhile is for the next run.
    revision = source.fingerprint()
    found = survey(source, recognised)
    # 2. Where each row goes; what cannot stay is written down before anything can stop the stage.
    rows = found.rows()
    decided = splitting.decide(rows, found.alike(), config.split.sizes(), config.seed)
    refused = _refused(rows, decided)
    _write_quarantine(found, refused, rejected)
    _tell(found, decided, rows)
    _limit(found, refused, config.max_rejected, rejected)
    splitting.require_rows(rows, decided, source.named)
    # 3. The rows themselves.
    with told(out):
        _write_splits(found, rows, decided, out / "splits")
        about = _about(found, rows, refused, decided, revision)
        text = json.dumps(about, indent=2, ensure_ascii=False)
        (out / "source.json").write_text(text + "\n", encoding="utf-8")
    return _metrics(rows, decided, len(refused))


def retry(config: Config, workspace: Path) -> list[str]:
    """Check the source as it is now; a line for each row in quarantine, with what became of it."""
    before = quarantine.read(workspace / quarantine.FILE)
    if not before:
        return ["no rows are in quarantine"]
    source, recognised = open_source(config, workspace)
    found = survey(source, recognised)
    rows = found.rows()
    decided = splitting.decide(rows, found.alike(), config.split.sizes(), config.seed)
    now = {(one.file, one.row): one for one in _refused(rows, decided).values()}
    present = {(one.file, one.row) for one in rows}
    lines, passing = [], 0
    for one in before:
        place = (one.file, one.row)
        still = now.get(place)
        fate = still.reason if still else "passes now" if place in present else "is gone"
        passing += fate == "passes now"
        lines.append(f"{one.file}: row {one.row} (id {one.id or 'missing'}): {fate}")
    return [*lines, f"{passing} of {len(before)} rows pass now; stage data takes them in"]


# ---- what is refused -----------------------------------------------------------------------------


def _refused(rows: Sequence[Verdict], decided: Decided) -> dict[int, Refused]:
    """The rows that do not go into a split, by their number in the source."""
    found = {}
    for number, one in enumerate(rows):
        if reason := one.reason or decided.reasons.get(number, ""):
            found[number] = Refused(one.file, one.row, one.id, reason)
    return found


def _write_quarantine(found: Survey, refused: Mapping[int, Refused], path: Path) -> None:
    """Write the quarantine file anew; what a row says is read once more."""
    path.unlink(missing_ok=True)
    if refused:
        quarantine.write(path, _with_values(found, refused))


def _with_values(found: Survey, refused: Mapping[int, Refused]) -> Iterator[Refused]:
    first = 0
    for chunk, verdicts in found.chunks():
        numbers = range(first, first + len(verdicts))
        first += len(verdicts)
        if not any(number in refused for number in numbers):
            continue
        for number, row in zip(numbers, found.checking.raw_rows(chunk), strict=False):
            if number in refused:
                yield refused[number]._replace(values=row.values)


def _limit(found: Survey, refused: Mapping[int, Refused], most: float, path: Path) -> None:
    """Stop when too many rows are refused, else warn."""
    if not refused:
        return
    first, rows = next(iter(refused.values())), len(found.rows())
    first = first._replace(file=found.checking.source.place.where(first.file))
    others = f" and {len(refused) - 1} more" if len(refused) > 1 else ""
    message = f"{first}{others}, of {rows} rows; all in {path}"
    if len(refused) > most * rows:
        raise InputError(f"{message} (data.max_rejected is {most:g})")
    print(one_line(f"adapt data: warning: left out {message}"), file=sys.stderr)


# ---- what is written -----------------------------------------------------------------------------


def _write_splits(found: Survey, rows: Sequence[Verdict], decided: Decided, folder: Path) -> None:
    """Write the vocabulary and a file for each split, in the order of the source."""
    folder.mkdir()
    if found.checking.vocabulary is not None:
        write_vocabulary(folder / VOCABULARY, found.checking.vocabulary)
    with ExitStack() as stack:
        writers = {
            split: stack.enter_context(_writer(folder, split, rows, decided)) for split in SPLITS
        }
        checker = stack.enter_context(Checker(found.checking))
        splits = iter(decided.splits)
        for chunk, verdicts in track(found.chunks(), "writing rows", len(rows), count=_rows_of):
            for verdict, row in zip_longest(verdicts, found.checking.raw_rows(chunk)):
                if split := next(splits) if verdict else "":
                    writers[split].write(checker.record(row, verdict))


def _rows_of(chunk: tuple[Any, Sequence[Verdict]]) -> int:
    return len(chunk[1])


def _writer(folder: Path, split: str, rows: Sequence[Verdict], decided: Decided) -> Writer:
    inside = [one for one, place in zip(rows, decided.splits, strict=True) if place == split]
    kind: Kind = "preference" if inside[0].kind == "preference" else "evaluation"
    several = any(one.images != 1 for one in inside)
    return Writer(folder / f"{split}.parquet", kind, several)


# ---- what is told --------------------------------------------------------------------------------


def _tell(found: Survey, decided: Decided, rows: Sequence[Verdict]) -> None:
    checked = f"{found.known:,} known, {len(rows) - found.known:,} checked"
    print(f"adapt data: {len(rows):,} rows: {checked}")
    if left_out := found.checking.recognised.left_out:
        files = f"{left_out[0]}{f' and {len(left_out) - 1} more' if len(left_out) > 1 else ''}"
        print(
            one_line(f"adapt data: warning: left out, of another format: {files}"), file=sys.stderr
        )
    if decided.cut:
        print(
            one_line(
                f"adapt data: {' and '.join(decided.cut)} cut from the training rows, by picture"
            )
        )
    if decided.leaks:
        others = f" and {len(decided.leaks) - 1} more" if len(decided.leaks) > 1 else ""
        where = f"{decided.leaks[0]}{others}"
        print(
            one_line(f"adapt data: warning: pictures of two splits look alike: {where}"),
            file=sys.stderr,
        )


def _about(
    found: Survey,
    rows: Sequence[Verdict],
    refused: Mapping[int, Refused],
    decided: Decided,
    revision: str,
) -> dict[str, Any]:
    """What `source.json` says."""
    source, recognised = found.checking.source, found.checking.recognised
    return {
        "source": source.named,
        "format": recognised.format,
        "why": recognised.why,
        "revision": revision,
        "left_out": list(recognised.left_out),
        "rows": len(rows),
        "rejected": len(refused),
        "splits": {s: "cut" if s in decided.cut else "given" for s in SPLITS},
    }


def _metrics(rows: Sequence[Verdict], decided: Decided, rejected: int) -> dict[str, float]:
    """Figures of what was written."""
    inside = [(one, split) for one, split in zip(rows, decided.splits, strict=True) if split]
    counts: dict[str, float] = {}
    for split in SPLITS:
        images = {one.image_id for one, place in inside if place == split}
        counts[f"{split}/images"] = float(len(images))
        counts[f"{split}/rows"] = float(sum(place == split for _, place in inside))
    objects = {one.image_id: one.objects for one, _ in inside if one.objects >= 0}
    if objects:
        counts["objects_per_image"] = sum(objects.values()) / len(objects)
    known = sum(one.objects >= 0 for one, _ in inside)
    said = {one.said for one, _ in inside}
    return counts | {
        "rejected": float(rejected),
        "pictures": float(decided.pictures),
        "near_duplicates": float(decided.alike),
        "repeated_rows": float(len(inside) - len(said)),
        "rows_with_truth": float(known),
        "rows_without_truth": float(len(inside) - known),
    }
