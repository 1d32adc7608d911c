"""The pair file: one preference pair a row, with the visual anchor of its image-question."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from adapt.params import InputError, require


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pair:
    """One preference: two answers to one image-question, and where the image supports them.

    `anchor` is the visual anchor over the image tokens (sum 1), in raster order of `grid` (rows,
    columns).
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
    grid: tuple[int, int]


SCHEMA = pa.schema(
    {
        **dict.fromkeys(("id", "kind"), pa.string()),
        "images": pa.list_(pa.binary()),
        **dict.fromkeys(("question", "chosen", "rejected"), pa.string()),
        **dict.fromkeys(("chosen_score", "rejected_score"), pa.float32()),
        "anchor": pa.list_(pa.float32()),
        "grid": pa.list_(pa.int32()),
    }
)


def write_pairs(path: Path, pairs: Sequence[Pair]) -> None:
    """Write the pair file; refuses to write an empty one."""
    assert pairs, "an empty pair file trains nothing"
    rows = [dataclasses.asdict(pair) for pair in pairs]
    pq.write_table(pa.Table.from_pylist(rows, schema=SCHEMA), path)


def read_pairs(path: Path) -> list[Pair]:
    """Read a pair file; InputError names the file and what is wrong with it."""
    try:
        rows = pq.read_table(path).to_pylist()
    except FileNotFoundError:
        advice = "run the pairs stage first (dvc repro pairs)"
        raise InputError(f"{path}: not found; {advice}") from None
    except pa.ArrowInvalid:
        raise InputError(f"{path}: not a parquet file") from None
    names = set(SCHEMA.names)
    if not rows or names - rows[0].keys():
        missing = ", ".join(sorted(names - rows[0].keys())) if rows else "rows"
        raise InputError(f"{path}: missing {missing}")
    return [
        _pair(f"{path}: row {number} ({row['id']})", {name: row[name] for name in names})
        for number, row in enumerate(rows, 1)
    ]


def _pair(where: str, row: dict) -> Pair:
    for key in ("chosen", "rejected", "question", "images"):
        require(bool(row[key]), where, f"no {key}")
    grid, values = tuple(row["grid"]), len(row["anchor"])
    fits = len(grid) == 2 and grid[0] * grid[1] == values
    require(fits, where, f"anchor of {values} values on grid {grid}")
    return Pair(
        **{**row, "images": tuple(row["images"]), "anchor": tuple(row["anchor"]), "grid": grid}
    )
