"""Files of records: parquet that Hugging Face `datasets` reads as it is, images decoded.

Columns of both kinds of rows (`Dataset.from_parquet(path)` decodes the pictures):

    id             unique over all files of a data set
    image_id       rows of one image share it; an image belongs to one file only
    image          {bytes, path}; a path is relative to the file's folder and stays inside it
    images         in its place where rows have several pictures: a list of them
    kind           describe | exists | colour | other
    history        [{question, answer}], earlier turns of the dialogue, oldest first
    question       pictures stand before it, or where it says `<image>`, once for each
    objects        [{name, colour, box: [x0, y0, x1, y1] in 0..1}], all that is truly there; null
                   where nobody knows
    absent         names of absent objects that usually come along; null where nobody knows

Evaluation rows have `answer` besides. Preference rows have `chosen`, `rejected`, `chosen_score`,
`rejected_score` (null: not given), and `rejected_images`, the pictures that the rejected answer is
about (empty: the same).
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq

from adapt.data.schema import Example, Preference, SceneObject, Turn
from adapt.params import InputError, require

Kind = Literal["evaluation", "preference"]
ROW_GROUP = 1000
_TEXT = pa.string()
_PICTURE = pa.struct({"bytes": pa.binary(), "path": _TEXT})
_OBJECT = pa.struct({"name": _TEXT, "colour": _TEXT, "box": pa.list_(pa.float64())})
_TURN = pa.struct({"question": _TEXT, "answer": _TEXT})
_ASKED = {
    **dict.fromkeys(("id", "image_id"), _TEXT),
    "image": _PICTURE,
    "kind": _TEXT,
    "history": pa.list_(_TURN),
    "question": _TEXT,
}
_TRUTH = {"objects": pa.list_(_OBJECT), "absent": pa.list_(_TEXT)}
_ANSWERS: dict[Kind, dict[str, Any]] = {
    "evaluation": {"answer": _TEXT},
    "preference": {
        **dict.fromkeys(("chosen", "rejected"), _TEXT),
        "rejected_images": pa.list_(_PICTURE),
        **dict.fromkeys(("chosen_score", "rejected_score"), pa.float64()),
    },
}


def schema_of(kind: Kind, several: bool) -> pa.Schema:
    """The columns of a file; `several`: its rows may have several pictures."""
    schema = pa.schema({**_ASKED, **_ANSWERS[kind], **_TRUTH})
    if not several:
        return schema
    return schema.set(schema.get_field_index("image"), pa.field("images", pa.list_(_PICTURE)))


def kind_of_file(path: Path) -> Kind:
    """Which kind of rows a file has."""
    return _kind(_open(path).schema_arrow.names)


def _kind(columns: Sequence[str]) -> Kind:
    return "preference" if "chosen" in columns else "evaluation"


def _open(path: Path) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(path)
    except FileNotFoundError:
        raise InputError(f"{path}: not found") from None
    except (pa.ArrowInvalid, OSError):
        raise InputError(f"{path}: not a parquet file, or damaged") from None


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The rows of a parquet file as plain values, not yet validated; InputError for other files.

    All rows have `images`, a list, also those of a file with the column `image`.
    """
    file = _open(path)
    names = file.schema_arrow.names
    schema = schema_of(_kind(names), several="images" in names)
    missing = [name for name in schema.names if name not in names]
    require(not missing, str(path), f"missing column {', '.join(missing)}")
    try:
        table = file.read(columns=schema.names)
    except (pa.ArrowInvalid, OSError):
        raise InputError(f"{path}: not a parquet file, or damaged") from None
    rows = cast(table, schema, path).to_pylist()
    if "images" in schema.names:
        return rows
    return [row | {"images": [row.pop("image")]} for row in rows]


def cast(table: pa.Table, schema: pa.Schema, path: Path, advice: str = "") -> pa.Table:
    """The columns of a file in the types of `schema`; InputError names one that is another."""
    columns = []
    for field in schema:
        column = table[field.name]
        try:
            columns.append(column.cast(field.type))
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError, pa.ArrowTypeError):
            problem = f"column {field.name} is {column.type}, expected {field.type}"
            raise InputError("; ".join(filter(None, [f"{path}: {problem}", advice]))) from None
    return pa.table(columns, schema=schema)


# ---- records -------------------------------------------------------------------------------------


def read_split(path: Path) -> Sequence[Example]:
    """The questions of a file that the data stage has written; images stay undecoded bytes."""
    if kind_of_file(path) == "preference":
        return [row.asked() for row in read_preferences(path)]
    return [Example(**fields) for fields in _records(path)]


def read_preferences(path: Path) -> Sequence[Preference]:
    """The preferences of a file that the data stage has written; InputError for other rows."""
    problem = "has no preferences (columns chosen and rejected)"
    require(kind_of_file(path) == "preference", str(path), problem)
    return [Preference(**fields) for fields in _records(path)]


def _records(path: Path) -> list[dict[str, Any]]:
    pool: dict[bytes, bytes] = {}  # rows of one image share its bytes
    return [_fields(row, pool) for row in read_rows(path)]


def _fields(row: dict[str, Any], pool: dict[bytes, bytes]) -> dict[str, Any]:
    for name in ("images", "rejected_images"):
        if name in row:
            contents = [one["bytes"] for one in row[name] or ()]
            row[name] = tuple(pool.setdefault(content, content) for content in contents)
    row["history"] = tuple(Turn(**turn) for turn in row["history"] or ())
    if row["objects"] is not None:
        row["objects"] = tuple(map(_object, row["objects"]))
    if row["absent"] is not None:
        row["absent"] = tuple(row["absent"])
    return row


def _object(thing: Mapping[str, Any]) -> SceneObject:
    box = None if thing["box"] is None else tuple(thing["box"])
    return SceneObject(name=thing["name"], colour=thing["colour"], box=box)


def write_split(path: Path, records: Sequence[Example] | Sequence[Preference]) -> None:
    """Write records of one kind; the same ones give the same bytes."""
    rows = []
    for record in records:
        row = {name: getattr(record, name) for name in record.__dataclass_fields__}
        images = _pictures(record.images)
        row |= {"image": images[0], "images": images}
        row["history"] = [asdict(turn) for turn in record.history]
        if record.objects is not None:
            row["objects"] = [asdict(thing) for thing in record.objects]
        if isinstance(record, Preference):
            row["rejected_images"] = _pictures(record.rejected_images)
        rows.append(row)
    kind: Kind = "preference" if records and isinstance(records[0], Preference) else "evaluation"
    schema = schema_of(kind, several=any(len(record.images) > 1 for record in records))
    metadata = {"huggingface": json.dumps({"info": {"features": hf_features(schema)}})}
    table = pa.Table.from_pylist(rows, schema=schema.with_metadata(metadata))
    # The dictionary keeps an image once per row group although each of its rows has it.
    options = {"dictionary_pagesize_limit": 1 << 30, "write_statistics": False}
    pq.write_table(table, path, row_group_size=ROW_GROUP, compression="zstd", **options)


def _pictures(contents: Sequence[bytes]) -> list[dict[str, bytes | None]]:
    return [{"bytes": content, "path": None} for content in contents]


def hf_features(schema: pa.Schema) -> dict[str, Any]:
    """The column types in the words of `datasets.Features`, so that it decodes images untold."""

    def feature(kind: pa.DataType) -> dict[str, Any]:
        if kind == _PICTURE:
            return {"_type": "Image"}
        if pa.types.is_list(kind):
            return {"feature": feature(kind.value_type), "_type": "List"}
        if pa.types.is_struct(kind):
            return {kind.field(i).name: feature(kind.field(i).type) for i in range(kind.num_fields)}
        return {"dtype": {"double": "float64"}.get(str(kind), str(kind)), "_type": "Value"}

    return {field.name: feature(field.type) for field in schema}
