"""The record that everything downstream knows: a question about an image, and what is truly there.

A data set is a folder with `train.parquet`, `validation.parquet`, `test.parquet` and
`vocabulary.json`. The parquet files are those of Hugging Face `datasets`
(`Dataset.from_parquet(path)` decodes the images); columns:

    id            unique over all three files
    image_id      rows of one image share it; an image belongs to one file only
    image         {bytes, path}; a path is relative to the parquet file's folder and stays inside it
    images        in its place where rows have several pictures: a list of them
    kind          describe | exists | colour
    question      pictures stand before it, or where it says `<image>`, once for each
    answer
    noisy_answer  what a crawled corpus would say, "" for none; only training on scratch reads it
    objects       [{name, colour, box: [x0, y0, x1, y1] in 0..1}], all that is truly there
    absent        names of absent objects that usually come along: likely hallucinations (AMBER's
                  targets)

`vocabulary.json`: {"objects": {"house": ["house", "houses"], ...}, "colours": ["red", ...]}: every
object a row may name, with the lower-case words that mean it in an answer.
`adapt/data/validation.py` says what is refused.
"""

import io
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image, ImageOps

from adapt.params import InputError, require

KINDS = ("describe", "exists", "colour")
SPLITS = ("train", "validation", "test")
ROW_GROUP = 1000
IMAGE_TAG = "<image>"
_TEXT = pa.string()
_PICTURE = pa.struct({"bytes": pa.binary(), "path": _TEXT})
_OBJECT = pa.struct({"name": _TEXT, "colour": _TEXT, "box": pa.list_(pa.float64())})
SCHEMA = pa.schema(
    {
        **dict.fromkeys(("id", "image_id"), _TEXT),
        "image": _PICTURE,
        **dict.fromkeys(("kind", "question", "answer", "noisy_answer"), _TEXT),
        "objects": pa.list_(_OBJECT),
        "absent": pa.list_(_TEXT),
    }
)
SEVERAL = SCHEMA.set(SCHEMA.get_field_index("image"), pa.field("images", pa.list_(_PICTURE)))
"""The columns of a file with rows of several pictures."""


@dataclass(frozen=True, kw_only=True)
class SceneObject:
    """Something truly there; `box` is (x0, y0, x1, y1) in 0..1 of the first picture.

    `colour` may be "".
    """

    name: str
    colour: str
    box: tuple[float, float, float, float]


@dataclass(frozen=True, kw_only=True)
class Example:
    """One question about one picture or several: bytes of image files, see `open_images`."""

    id: str
    image_id: str
    images: tuple[bytes, ...]
    kind: str
    question: str
    answer: str
    noisy_answer: str
    objects: tuple[SceneObject, ...]
    absent: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Vocabulary:
    """Canonical object names with the words that mean them, and the colour words."""

    objects: dict[str, tuple[str, ...]]
    colours: tuple[str, ...]


def open_picture(content: bytes) -> Image.Image:
    """The picture in the bytes of an image file, as every part of the project sees it.

    Upright where EXIF says that the camera was turned, transparent parts on white, RGB.
    """
    picture = ImageOps.exif_transpose(Image.open(io.BytesIO(content)))
    if picture.has_transparency_data:
        layer = picture.convert("RGBA")
        picture = Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer)
    return picture.convert("RGB")


def open_images(example: Example) -> list[Image.Image]:
    """The decoded pictures of a row."""
    return [open_picture(content) for content in example.images]


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The rows of a parquet file as plain values, not yet validated; InputError for other files.

    All rows have `images`, a list, also those of a file with the column `image`.
    """
    try:
        file = pq.ParquetFile(path)
        schema = SEVERAL if "images" in file.schema_arrow.names else SCHEMA
        missing = [name for name in schema.names if name not in file.schema_arrow.names]
        require(not missing, str(path), f"missing column {', '.join(missing)}")
        table = file.read(columns=schema.names)
    except FileNotFoundError:
        raise InputError(f"{path}: not found") from None
    except (pa.ArrowInvalid, OSError):
        raise InputError(f"{path}: not a parquet file, or damaged") from None
    rows = cast(table, schema, path).to_pylist()
    return rows if schema is SEVERAL else [row | {"images": [row.pop("image")]} for row in rows]


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


def read_split(path: Path) -> list[Example]:
    """The examples of a file that the data stage has written; images stay undecoded bytes."""
    pool: dict[bytes, bytes] = {}  # rows of one image share its bytes
    examples = []
    for row in read_rows(path):
        images = tuple(pool.setdefault(one["bytes"], one["bytes"]) for one in row["images"])
        objects = tuple(SceneObject(**{**o, "box": tuple(o["box"])}) for o in row["objects"])
        truth = {"objects": objects, "absent": tuple(row["absent"])}
        examples.append(Example(**{**row, "images": images, **truth}))
    return examples


def write_split(path: Path, examples: Sequence[Example]) -> None:
    """Write a split; the same examples give the same bytes."""
    rows = []
    for example in examples:
        images = [{"bytes": content, "path": None} for content in example.images]
        rows.append({**asdict(example), "image": images[0], "images": images})
    schema = SCHEMA if all(len(example.images) == 1 for example in examples) else SEVERAL
    metadata = {"huggingface": json.dumps({"info": {"features": hf_features(schema)}})}
    table = pa.Table.from_pylist(rows, schema=schema.with_metadata(metadata))
    # The dictionary keeps an image once per row group although each of its rows has it.
    options = {"dictionary_pagesize_limit": 1 << 30, "write_statistics": False}
    pq.write_table(table, path, row_group_size=ROW_GROUP, compression="zstd", **options)


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


def read_vocabulary(path: Path) -> Vocabulary:
    """Read and check `vocabulary.json`."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        objects = {name: tuple(words) for name, words in content["objects"].items()}
        vocabulary = Vocabulary(objects=objects, colours=tuple(content["colours"]))
    except FileNotFoundError:
        raise InputError(f"{path}: not found") from None
    except (UnicodeDecodeError, json.JSONDecodeError):
        raise InputError(f"{path}: not JSON") from None
    except (KeyError, TypeError, AttributeError):
        expected = '{"objects": {name: [word, ...]}, "colours": [word, ...]}'
        raise InputError(f"{path}: expected {expected}") from None
    owner: dict[str, str] = {}
    for name, words in vocabulary.objects.items():
        require(bool(words), str(path), f"object {name!r} has no words")
        for word in words:
            good = isinstance(word, str) and word.strip() and word == word.lower()
            require(bool(good), str(path), f"object {name!r}: {word!r} is not a lower-case word")
            problem = f"{word!r} means both {owner.get(word)!r} and {name!r}"
            require(word not in owner, str(path), problem)
            owner[word] = name
    return vocabulary


def write_vocabulary(path: Path, vocabulary: Vocabulary) -> None:
    """Write `vocabulary.json`."""
    path.write_text(json.dumps(asdict(vocabulary), indent=1) + "\n", encoding="utf-8")
