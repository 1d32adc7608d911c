"""The columns of a split file, a parquet file of rows of one kind.

Hugging Face `datasets` reads these files as they are: `Dataset.from_parquet` decodes the pictures.
Both kinds have

    id               unique over the files of a folder
    image_id         rows of one image share it
    image            {bytes, path}
    images           in its place in files with rows of several pictures: a list of them
    kind             one of `schema.KINDS`
    history          [{question, answer}], earlier turns
    question         pictures stand before it, or where it says `<image>`, once for each
    objects          [{name, colour, box: [x0, y0, x1, y1] in 0..1}]; null: unknown, []: known none
    absent           names of absent objects that usually come along (AMBER's); null: unknown

and evaluation rows `answer`, preference rows `chosen`, `rejected`, `rejected_images` (empty: the
same pictures), `chosen_score` and `rejected_score`.
"""

import json
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa

from adapt.params import InputError

Kind = Literal["evaluation", "preference"]
_TEXT = pa.string()
_PICTURE = pa.struct({"bytes": pa.binary(), "path": _TEXT})
_OBJECT = pa.struct({"name": _TEXT, "colour": _TEXT, "box": pa.list_(pa.float64())})
_TURN = pa.struct({"question": _TEXT, "answer": _TEXT})
_SAID: dict[Kind, dict[str, pa.DataType]] = {
    "evaluation": {"answer": _TEXT},
    "preference": {
        **dict.fromkeys(("chosen", "rejected"), _TEXT),
        "rejected_images": pa.list_(_PICTURE),
        **dict.fromkeys(("chosen_score", "rejected_score"), pa.float64()),
    },
}
OPTIONAL = ("history", "objects", "absent", "rejected_images", "chosen_score", "rejected_score")
"""What a file may lack: nothing is known of it then."""


def schema_of(kind: Kind, several: bool) -> pa.Schema:
    """The schema of a file; `several`: of one in which a row may have any number of pictures."""
    pictures = {"images": pa.list_(_PICTURE)} if several else {"image": _PICTURE}
    texts = {**dict.fromkeys(("id", "image_id"), _TEXT), **pictures, "kind": _TEXT}
    asked = {"history": pa.list_(_TURN), "question": _TEXT, **_SAID[kind]}
    truth = {"objects": pa.list_(_OBJECT), "absent": pa.list_(_TEXT)}
    return pa.schema({**texts, **asked, **truth})


def described(schema: pa.Schema) -> pa.Schema:
    """The schema with metadata by which `datasets` decodes images untold."""
    about = {"info": {"features": hf_features(schema)}}
    return schema.with_metadata({"huggingface": json.dumps(about)})


def hf_features(schema: pa.Schema) -> dict[str, Any]:
    """The column types in the words of `datasets.Features`."""
    return {field.name: _feature(field.type) for field in schema}


def _feature(kind: pa.DataType) -> dict[str, Any]:
    if kind == _PICTURE:
        return {"_type": "Image"}
    if pa.types.is_list(kind):
        return {"feature": _feature(kind.value_type), "_type": "List"}
    if pa.types.is_struct(kind):
        return {kind.field(i).name: _feature(kind.field(i).type) for i in range(kind.num_fields)}
    return {"dtype": {"double": "float64"}.get(str(kind), str(kind)), "_type": "Value"}


def cast(table: pa.Table, schema: pa.Schema, path: Path, advice: str = "") -> pa.Table:
    """The columns of a file in the types of `schema`; InputError names one that is another."""
    cast_columns = []
    for field in schema:
        column = table[field.name]
        try:
            cast_columns.append(column.cast(field.type))
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError, pa.ArrowTypeError):
            problem = f"column {field.name} is {column.type}, expected {field.type}"
            raise InputError("; ".join(filter(None, [f"{path}: {problem}", advice]))) from None
    return pa.table(cast_columns, schema=schema)
