"""The pair file: one preference pair a row, with the visual anchor of its pictures and question.

The anchor is kept twice: over the image tokens of the model that made it, for attention
supervision, and as a map over each picture, for v+, which means the same to every model. What the
tokens depend on, chat template and kind of model, is in the metadata of the file.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

import pyarrow as pa
import pyarrow.parquet as pq
from datasets import Dataset, Features, List, Value

from adapt.attention.grids import Grid, Kind
from adapt.attention.layout import View
from adapt.attention.support import SIDE
from adapt.data.tables import cast
from adapt.params import InputError, require

ROW_GROUP = 1000
REMAKE = "run the pairs stage again (dvc repro pairs)"


@dataclasses.dataclass(frozen=True, kw_only=True)
class PairView:
    """One grid of patches among the image tokens of a prompt; `image` counts pictures from 0."""

    image: int
    kind: Kind
    rows: int
    columns: int

    @classmethod
    def of(cls, view: View) -> "PairView":
        """What is kept of a view."""
        return cls(image=view.image, kind=view.kind, rows=view.grid[0], columns=view.grid[1])

    @property
    def grid(self) -> Grid:
        """(rows, columns)."""
        return self.rows, self.columns


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pair:
    """One preference: two answers to a question about pictures, and where these support them.

    `anchor` is the visual anchor over all image tokens of the prompt (sum 1), 0 at separators;
    `views` are the grids among these tokens, in order. `support` is the anchor over each picture,
    SIDE x SIDE bytes, row by row.
    """

    id: str
    kind: str
    images: tuple[bytes, ...]
    question: str
    chosen: str
    rejected: str
    chosen_score: float
    rejected_score: float
    anchor: tuple[float, ...]
    views: tuple[PairView, ...]
    support: tuple[bytes, ...]


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
SCHEMA = pa.schema(
    {
        **dict.fromkeys(("id", "kind"), pa.string()),
        "images": pa.list_(pa.large_binary()),
        **dict.fromkeys(("question", "chosen", "rejected"), pa.string()),
        **dict.fromkeys(("chosen_score", "rejected_score"), pa.float32()),
        "anchor": pa.list_(pa.float32()),
        "views": pa.list_(_VIEW),
        "support": pa.list_(pa.binary()),
    }
)


def write_pairs(path: Path, pairs: Sequence[Pair], origin: Origin) -> None:
    """Write the pair file; refuses to write an empty one."""
    assert pairs, "an empty pair file trains nothing"
    rows = [dataclasses.asdict(pair) for pair in pairs]
    schema = SCHEMA.with_metadata(dataclasses.asdict(origin))
    table = pa.Table.from_pylist(rows, schema=schema)
    pq.write_table(table, path, row_group_size=ROW_GROUP, compression="zstd")


def read_pairs(path: Path) -> list[Pair]:
    """The rows of a pair file; InputError names the file, the row and what is wrong with it."""
    file = _open(path)
    missing = [name for name in SCHEMA.names if name not in file.schema_arrow.names]
    require(not missing, str(path), f"missing {', '.join(missing)}; {REMAKE}")
    rows = cast(file.read(columns=SCHEMA.names), SCHEMA, path, REMAKE).to_pylist()
    require(bool(rows), str(path), f"no rows; {REMAKE}")
    pairs = [_pair(f"{path}: row {n} ({row['id']})", row) for n, row in enumerate(rows, 1)]
    first: dict[str, int] = {}
    for number, pair in enumerate(pairs, 1):
        where, before = f"{path}: row {number} ({pair.id})", first.setdefault(pair.id, number)
        require(before == number, where, f"id: that of row {before} as well")
    return pairs


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
        return pq.ParquetFile(path)
    except FileNotFoundError:
        raise InputError(
            f"{path}: not found; run the pairs stage first (dvc repro pairs)"
        ) from None
    except (pa.ArrowInvalid, OSError):
        raise InputError(f"{path}: not a parquet file, or damaged") from None


# ---- what a row must be --------------------------------------------------------------------------


def _pair(where: str, row: dict[str, Any]) -> Pair:
    """The row as a pair. Each check says what the next one may take for granted."""
    for key, value in row.items():
        require(value is not None, where, f"no {key}")
    for key in ("id", "images", "question", "chosen", "rejected", "anchor", "views"):
        require(bool(row[key]), where, f"no {key}")
    require(all(row["images"]), where, "images: one has no bytes")
    for key in ("chosen_score", "rejected_score"):
        require(math.isfinite(row[key]), where, f"{key}: {row[key]}")
    _check_anchor(where, row)
    fields = {key: tuple(row[key]) for key in ("images", "anchor", "support")}
    return Pair(**{**row, **fields, "views": tuple(PairView(**view) for view in row["views"])})


def _check_anchor(where: str, row: Mapping[str, Any]) -> None:
    """That anchor, views and maps belong to each other and to the pictures."""
    values, pictures = row["anchor"], len(row["images"])
    is_weight = all(value is not None and 0 <= value < math.inf for value in values)
    require(is_weight, where, "anchor: a value is negative or not finite")
    patches = 0
    for view in row["views"]:
        is_view = view is not None and view["kind"] in get_args(Kind)
        is_view = is_view and all(
            view[key] is not None and view[key] >= low
            for key, low in (("image", 0), ("rows", 1), ("columns", 1))
        )
        require(is_view, where, f"views: {view} is none")
        patches += view["rows"] * view["columns"]
    problem = f"{len(values)} values, but its views have {patches} patches"
    require(patches <= len(values), where, f"anchor: {problem}")
    sizes = [0 if one is None else len(one) for one in row["support"]]
    expected = f"{pictures} maps of {SIDE**2} bytes, one for each picture"
    require(sizes == [SIDE**2] * pictures, where, f"support: expected {expected}, got {sizes}")


# ---- as a data set -------------------------------------------------------------------------------

FEATURES = Features(
    {
        "id": Value("string"),
        "images": List(Value("large_binary")),
        **dict.fromkeys(("question", "chosen", "rejected"), Value("string")),
        "anchor": List(Value("float32")),
        "support": List(Value("binary")),
    }
)


def dataset(pairs: Sequence[Pair]) -> Dataset:
    """What training reads of the pairs, in their order. Pictures stay undecoded bytes."""
    return Dataset.from_list([_trained(pair) for pair in pairs], features=FEATURES)


def _trained(pair: Pair) -> dict[str, Any]:
    row = {name: getattr(pair, name) for name in FEATURES}
    return {name: [*value] if isinstance(value, tuple) else value for name, value in row.items()}
