"""Data in and out by command: a source to our parquet files, and our preferences to other tools.

`convert` is stage `data` on a source that need not stand in params.yaml. `export` reads split files
with preferences and pair files of stage `pairs`, whose columns differ; anchors stay behind.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from adapt.data import export as exporting
from adapt.data.disk import told
from adapt.data.formats import rlhf_v, trl
from adapt.data.importing import build
from adapt.data.schema import SPLITS, Preference, Turn
from adapt.data.settings import Config
from adapt.data.tables import kind_of_file, read_preferences
from adapt.data.validation import ID_LENGTH
from adapt.files import whole_folder
from adapt.params import InputError, plain, require

ANCHOR = "anchor"  # a column that only a pair file has
IN_A_FILE = (trl.NAME, rlhf_v.NAME)  # formats that one parquet file can hold
AT_ONCE = 64  # pairs
_TEXTS = ("id", "kind", "question", "chosen", "rejected")
_PICTURES = ("images", "rejected_images")
_SCORES = ("chosen_score", "rejected_score")


def convert(config: Config, workspace: Path, out: Path) -> dict[str, float]:
    """Write `train`, `validation` and `test.parquet` and, if there is one, the vocabulary to `out`.

    Refused rows go to a file beside it. Returns the figures of stage `data`.
    """
    require(not out.exists(), plain(str(out)), "is there already; name a new folder")
    rejected = out.absolute().with_name(f"{out.name}-rejected.jsonl")
    require(out.absolute().parent.is_dir(), plain(str(out)), "its folder is not there")
    with told(out), TemporaryDirectory(prefix=f".{out.name}-", dir=out.absolute().parent) as folder:
        made = Path(folder)
        figures = build.build(config, workspace, made, rejected)
        (made / "splits").rename(out)
    return figures


def export(name: str, path: Path, out: Path) -> dict[str, int]:
    """Write preferences in another tool's columns; returns how many, by the place written.

    A folder of split files becomes a folder with a file or folder for each split that has
    preferences; a file becomes what `formats.export` makes of it.
    """
    if not path.is_dir():
        with told(out):
            return {str(out): exporting.export(name, preferences(path), out)}
    files = {split: path / f"{split}.parquet" for split in SPLITS}
    found = {split: file for split, file in files.items() if _has_preferences(file)}
    listed = ", ".join(f"{split}.parquet" for split in SPLITS)
    require(bool(found), plain(str(path)), f"no preferences in {listed}")
    is_folder = out.suffix.lower() != ".parquet"
    require(is_folder, plain(str(out)), f"{plain(str(path))} has several splits; name a folder")
    require(not out.exists(), plain(str(out)), "is there already; name a new folder")
    ending = ".parquet" if name in IN_A_FILE else ""
    with told(out), whole_folder(out) as folder:
        return {
            f"{out / split}{ending}": exporting.export(
                name, preferences(file), folder / f"{split}{ending}"
            )
            for split, file in found.items()
        }


def preferences(path: Path) -> Iterable[Preference]:
    """The rows of a split file with preferences, or of a pair file of stage `pairs`."""
    kind_of_file(path)
    return _pairs(path) if ANCHOR in pq.read_schema(path).names else read_preferences(path)


def _has_preferences(path: Path) -> bool:
    return path.is_file() and kind_of_file(path) == "preference"


# ---- pair files ----------------------------------------------------------------------------------


def _pairs(path: Path) -> Iterator[Preference]:
    """The pairs of a file, some at a time; `image_id` is a hash of the pictures."""
    try:
        with pq.ParquetFile(path) as file:
            names = [*_TEXTS, *_PICTURES, *_SCORES, "history"]
            missing = [one for one in names if one not in file.schema_arrow.names]
            require(not missing, plain(str(path)), f"missing column {', '.join(missing)}")
            number = 0
            for batch in file.iter_batches(AT_ONCE, columns=names):
                for values in batch.to_pylist():
                    number += 1
                    yield _preference(f"{plain(str(path))}: row {number}", values)
    except (pa.ArrowException, OSError):
        raise InputError(f"{plain(str(path))}: not a parquet file, or damaged") from None


def _preference(where: str, values: Mapping[str, Any]) -> Preference:
    for name in _TEXTS:
        require(isinstance(values[name], str) and bool(values[name]), where, f"no {name}")
    pictures = {name: tuple(values[name] or ()) for name in _PICTURES}
    is_bytes = all(one and isinstance(one, bytes) for found in pictures.values() for one in found)
    require(bool(pictures["images"]) and is_bytes, where, "a picture without bytes")
    fields: dict[str, Any] = {name: values[name] for name in (*_TEXTS, *_SCORES)}
    return Preference(
        **fields | pictures,
        image_id=_image_id(pictures["images"]),
        history=tuple(Turn(**turn) for turn in values["history"] or ()),
        objects=None,
        absent=None,
    )


def _image_id(pictures: Sequence[bytes]) -> str:
    """As validation makes it where a row has none."""
    digests = json.dumps([hashlib.sha256(content).hexdigest() for content in pictures])
    return hashlib.sha256(digests.encode()).hexdigest()[:ID_LENGTH]
