"""The pair file: one preference pair a row, with the visual anchor of its pictures and question.

It is written as pairs come and read as they are asked for (`adapt/pairs/groups.py`), so that
its pictures need not fit into the memory.

The anchor is kept twice: over the image tokens of the model that made it, for attention
supervision, and as a map over each picture, for v+, which means the same to every model. What the
tokens depend on, chat template and kind of model, is in the metadata of the file.
"""

import dataclasses
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from adapt.data.columns import cast
from adapt.pairs.groups import GROUP_BYTES, GROUP_ROWS, RowGroups, opened, read_group
from adapt.pairs.record import Pair, PairPlace, PairView, Span, checked
from adapt.params import InputError, require

__all__ = ["Origin", "Pair", "PairPlace", "PairView", "Span"]
__all__ += ["read_ids", "read_origin", "read_pairs", "write_pairs"]
REMAKE = "run the pairs stage again (dvc repro pairs)"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Origin:
    """What the tokens of a file's answers and anchors depend on.

    `prompt` is the version of the chat template (`adapt.models.prompts.prompt_version`).
    """

    prompt: str
    model_type: str


_VIEW = pa.struct(
    {"image": pa.int32(), "kind": pa.string(), "rows": pa.int32(), "columns": pa.int32()}
)
_TURN = pa.struct({"question": pa.string(), "answer": pa.string()})
_SPANS = pa.list_(pa.list_(pa.int32(), 2))
_PLACE = pa.struct(
    {
        **dict.fromkeys(("start", "end", "image"), pa.int32()),
        "boxes": pa.list_(pa.list_(pa.float64(), 4)),
    }
)
SCHEMA = pa.schema(
    {
        **dict.fromkeys(("id", "kind", "source"), pa.string()),
        "images": pa.list_(pa.large_binary()),
        "history": pa.list_(_TURN),
        **dict.fromkeys(("question", "chosen", "rejected"), pa.string()),
        "rejected_images": pa.list_(pa.large_binary()),
        **dict.fromkeys(("chosen_score", "rejected_score"), pa.float32()),
        "anchor": pa.list_(pa.float32()),
        "views": pa.list_(_VIEW),
        "support": pa.list_(pa.binary()),
        "prefix": pa.string(),
        **dict.fromkeys(("chosen_spans", "rejected_spans"), _SPANS),
        "places": pa.list_(_PLACE),
    }
)


PICTURES = ["images.list.element", "rejected_images.list.element"]


def write_pairs(path: Path, pairs: Iterable[Pair], origin: Origin) -> int:
    """Write the pairs as they come; returns how many. One row group is in memory at a time."""
    schema, total = SCHEMA.with_metadata(dataclasses.asdict(origin)), 0
    # The dictionary keeps a picture once per row group although several rows have it. A row group
    # is read for a row at random: with zstd that takes twice as long, and pictures do not shrink.
    options: dict[str, Any] = {"compression": "lz4", "use_dictionary": PICTURES}
    options |= {"dictionary_pagesize_limit": 1 << 30, "write_statistics": False}
    with pq.ParquetWriter(path, schema, **options) as writer:
        for group in _grouped(pairs):
            rows = [dataclasses.asdict(pair) for pair in group]
            writer.write_table(pa.Table.from_pylist(rows, schema=schema))
            total += len(group)
    return total


def _grouped(pairs: Iterable[Pair]) -> Iterator[list[Pair]]:
    """The pairs in parts of a row group's size; a larger pair is a part of its own."""
    group: list[Pair] = []
    total = 0
    for pair in pairs:
        if group and (total + pair.size() > GROUP_BYTES or len(group) == GROUP_ROWS):
            yield group
            group, total = [], 0
        group.append(pair)
        total += pair.size()
    if group:
        yield group


def read_pairs(path: Path) -> RowGroups[Pair]:
    """The rows of a pair file, each read and checked when it is asked for.

    InputError names the file, and the row with what is wrong with it when that is read.
    """
    file = _open(path)
    missing = [name for name in SCHEMA.names if name not in file.schema_arrow.names]
    require(not missing, str(path), f"missing {', '.join(missing)}; {REMAKE}")
    require(file.metadata.num_rows > 0, str(path), f"no rows; {REMAKE}")
    return RowGroups(path, SCHEMA.names, _Casted(path), _Made(path), file)


def read_ids(path: Path) -> list[str]:
    """The ids of a pair file, in order; InputError where two rows have one."""
    file, ids = _open(path), list[str]()
    for group in range(file.metadata.num_row_groups):
        ids += read_group(file, group, ["id"], path)["id"].to_pylist()
    first: dict[str, int] = {}
    for number, identity in enumerate(ids, 1):
        before = first.setdefault(identity, number)
        where = f"{path}: row {number} ({identity})"
        require(before == number, where, f"id: that of row {before} as well")
    return ids


def read_origin(path: Path) -> Origin:
    """What the pairs were made with; InputError where the file does not say."""
    metadata = _open(path).schema_arrow.metadata or {}
    try:
        return Origin(**{f.name: metadata[f.name.encode()].decode() for f in _ORIGIN})
    except KeyError as missing:
        name = missing.args[0].decode()
        raise InputError(f"{path}: its metadata has no {name}; {REMAKE}") from None


_ORIGIN = dataclasses.fields(Origin)


def _open(path: Path) -> pq.ParquetFile:
    try:
        return opened(path)
    except FileNotFoundError:
        advice = "run the pairs stage first (dvc repro pairs)"
        raise InputError(f"{path}: not found; {advice}") from None


@dataclasses.dataclass(frozen=True)
class _Casted:
    """Makes the types of a row group those of `SCHEMA`."""

    path: Path

    def __call__(self, table: pa.Table) -> pa.Table:
        return cast(table, SCHEMA, self.path, REMAKE)


@dataclasses.dataclass(frozen=True)
class _Made:
    """Makes a pair from the number and the columns of a row."""

    path: Path

    def __call__(self, number: int, row: dict[str, Any]) -> Pair:
        return checked(f"{self.path}: row {number} ({row['id']})", row)
