"""The pair file: preference pairs with the visual anchor of their image-question, one parquet row
each.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from adapt.params import InputError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pair:
    """One preference: two answers to one image-question, and where the image supports them.

    `anchor` is the visual anchor over the image tokens (sum 1), in raster order of `grid` (rows,
    columns).
    """

    id: str
    kind: str
    image: bytes
    question: str
    chosen: str
    rejected: str
    chosen_score: float
    rejected_score: float
    anchor: tuple[float, ...]
    grid: tuple[int, int]


def write_pairs(path: Path, pairs: Sequence[Pair]) -> None:
    """Write the pair file; refuses to write an empty one."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    assert pairs, "an empty pair file trains nothing"
    schema = pa.schema(
        {
            **dict.fromkeys(("id", "kind"), pa.string()),
            "image": pa.binary(),
            **dict.fromkeys(("question", "chosen", "rejected"), pa.string()),
            **dict.fromkeys(("chosen_score", "rejected_score"), pa.float32()),
            "anchor": pa.list_(pa.float32()),
            "grid": pa.list_(pa.int32()),
        }
    )
    pq.write_table(
        pa.Table.from_pylist([dataclasses.asdict(p) for p in pairs], schema=schema), path
    )


def read_pairs(path: Path) -> list[Pair]:
    """Read a pair file; InputError names the file and what is wrong with it."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        rows = pq.read_table(path).to_pylist()
    except FileNotFoundError:
        raise InputError(
            f"{path}: not found; run the pairs stage first (dvc repro pairs)"
        ) from None
    except pa.ArrowInvalid:
        raise InputError(f"{path}: not a parquet file") from None
    names = {field.name for field in dataclasses.fields(Pair)}
    if not rows or names - rows[0].keys():
        missing = ", ".join(sorted(names - rows[0].keys())) if rows else "rows"
        raise InputError(f"{path}: missing {missing}")
    return [
        _pair(path, number, {name: row[name] for name in names})
        for number, row in enumerate(rows, 1)
    ]


def _pair(path: Path, number: int, row: dict) -> Pair:
    for key in ("chosen", "rejected", "question", "image"):
        if not row[key]:
            raise InputError(f"{path}: row {number} ({row['id']}): no {key}")
    grid = tuple(row["grid"])
    if len(grid) != 2 or grid[0] * grid[1] != len(row["anchor"]):
        raise InputError(
            f"{path}: row {number} ({row['id']}): anchor of {len(row['anchor'])} values on grid {grid}"
        )
    return Pair(**{**row, "anchor": tuple(row["anchor"]), "grid": grid})
