"""Our preferences in the columns of other tools, so that pairs made here can be used elsewhere.

    trl             prompt, chosen, rejected as messages, images; a parquet file or a folder
    llama-factory   sharegpt's conversations, chosen, rejected, with dataset_info.json; a folder
    ms-swift        messages, rejected_response, images, rejected_images; a folder
    rlhf-v          text with JSON, image, idx; a parquet file or a folder

A parquet file holds the pictures and the features that `datasets` decodes them by. A folder has
`preferences.jsonl` and the pictures beside it in `images`, each once, named by its content. TRL's
columns keep everything that a record has; what the others have no column for is left out.
"""

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from adapt.data.columns import hf_features, schema_of
from adapt.data.formats import llama_factory, ms_swift, rlhf_v, trl
from adapt.data.schema import IMAGE_TAG, Preference
from adapt.data.tables import PICTURES_A_GROUP, ROWS_A_GROUP
from adapt.files import whole_file, whole_folder
from adapt.params import InputError, hint, require, shown

ROWS = "preferences.jsonl"
PICTURES = "images"

Place = Callable[[bytes], Any]  # what a row says of a picture: its bytes, or the path of its file

_ENDINGS = {b"\x89PNG": ".png", b"\xff\xd8\xff": ".jpg", b"RIFF": ".webp"}
_KEPT = ("id", "image_id", "kind", "chosen_score", "rejected_score", "absent")


def embedded(content: bytes) -> dict[str, Any]:
    """A picture in the row itself, as `datasets` has it."""
    return {"bytes": content, "path": None}


def exported(name: str, preference: Preference, place: Place = embedded) -> dict[str, Any]:
    """The row of a format; InputError where the format cannot hold it."""
    _require_known(name)
    return _EXPORTERS[name](preference, place)


def export(name: str, preferences: Iterable[Preference], out: Path) -> int:
    """Write a parquet file (where `out` ends so) or a folder; returns the number of rows."""
    _require_known(name)
    require(not out.exists(), str(out), "is there already; name a new file or folder")
    if out.suffix.lower() != ".parquet":
        with whole_folder(out) as folder:
            return _write_folder(name, preferences, folder)
    if name not in _SCHEMAS:
        raise InputError(f"{out}: {name} is exported to a folder, not to a parquet file")
    with whole_file(out) as path:
        return _write_parquet(name, preferences, path)


def _require_known(name: str) -> None:
    problem = f"{shown(name)} is not exported; {hint(name, EXPORTED)}"
    require(name in EXPORTED, "--format", problem)


# ---- rows ----------------------------------------------------------------------------------------


def _turns(preference: Preference) -> list[tuple[str, str]]:
    """The conversation as (role, text); pictures before it are tags in its first turn."""
    asked = [turn.question for turn in preference.history] + [preference.question]
    replies = [turn.answer for turn in preference.history]
    if not any(IMAGE_TAG in text for text in asked):
        asked[0] = IMAGE_TAG * len(preference.images) + asked[0]
    turns = [("user", asked[0])]
    for reply, question in zip(replies, asked[1:], strict=True):
        turns += [("assistant", reply), ("user", question)]
    return turns


def _trl(preference: Preference, place: Place) -> dict[str, Any]:
    things = preference.objects
    return {
        **{name: getattr(preference, name) for name in _KEPT if name != "absent"},
        "images": [place(content) for content in preference.images],
        "prompt": [_message(role, text) for role, text in _turns(preference)],
        "chosen": [_message("assistant", preference.chosen)],
        "rejected": [_message("assistant", preference.rejected)],
        "rejected_images": [place(content) for content in preference.rejected_images],
        "objects": None if things is None else [asdict(thing) for thing in things],
        "absent": None if preference.absent is None else list(preference.absent),
    }


def _message(role: str, text: str) -> dict[str, Any]:
    """A message whose tags have become parts of their own."""
    parts = [part for part in re.split(f"({IMAGE_TAG})", text) if part]
    content = [
        {"type": "image", "text": None} if part == IMAGE_TAG else {"type": "text", "text": part}
        for part in parts
    ]
    return {"role": role, "content": content}


def _llama_factory(preference: Preference, place: Place) -> dict[str, Any]:
    _require_same_pictures(llama_factory.NAME, preference)
    names = {"user": "human", "assistant": "gpt"}
    spoken = [{"from": names[role], "value": text} for role, text in _turns(preference)]
    return {
        "id": preference.id,
        "conversations": spoken,
        "chosen": {"from": "gpt", "value": preference.chosen},
        "rejected": {"from": "gpt", "value": preference.rejected},
        "images": [place(content) for content in preference.images],
    }


def _ms_swift(preference: Preference, place: Place) -> dict[str, Any]:
    turns = [*_turns(preference), ("assistant", preference.chosen)]
    row = {
        "id": preference.id,
        "messages": [{"role": role, "content": text} for role, text in turns],
        "rejected_response": preference.rejected,
        "images": [place(content) for content in preference.images],
    }
    if preference.rejected_images:
        row["rejected_images"] = [place(content) for content in preference.rejected_images]
    return row


def _rlhf_v(preference: Preference, place: Place) -> dict[str, Any]:
    _require_same_pictures(rlhf_v.NAME, preference)
    is_plain = len(preference.images) == 1 and not preference.history
    problem = f"row {preference.id}: rlhf-v has one picture and one turn in a row; export to trl"
    require(is_plain, "--format", problem)
    names = ("question", "chosen", "rejected")
    pair = {name: getattr(preference, name) for name in names}
    return {
        "idx": preference.id,
        "image": place(preference.images[0]),
        "text": json.dumps(pair, ensure_ascii=False),
    }


def _require_same_pictures(name: str, preference: Preference) -> None:
    problem = f"row {preference.id}: {name} has no rejected pictures; export to trl"
    require(not preference.rejected_images, "--format", problem)


_EXPORTERS: Mapping[str, Callable[[Preference, Place], dict[str, Any]]] = {
    trl.NAME: _trl,
    llama_factory.NAME: _llama_factory,
    ms_swift.NAME: _ms_swift,
    rlhf_v.NAME: _rlhf_v,
}
EXPORTED = tuple(_EXPORTERS)

_PICTURE = schema_of("evaluation", several=False).field("image").type
_PART = pa.struct({"type": pa.string(), "text": pa.string()})
_MESSAGES = pa.list_(pa.struct({"role": pa.string(), "content": pa.list_(_PART)}))
_OURS = schema_of("preference", several=True)
_SCHEMAS: Mapping[str, pa.Schema] = {
    trl.NAME: pa.schema(
        {
            "images": pa.list_(_PICTURE),
            **dict.fromkeys(("prompt", "chosen", "rejected"), _MESSAGES),
            **{name: _OURS.field(name).type for name in ("rejected_images", "objects", *_KEPT)},
        }
    ),
    rlhf_v.NAME: pa.schema({"idx": pa.string(), "image": _PICTURE, "text": pa.string()}),
}


# ---- files ---------------------------------------------------------------------------------------


def _write_parquet(name: str, preferences: Iterable[Preference], path: Path) -> int:
    """Row groups of bounded size, so that memory does not grow with the number of rows."""
    metadata = {"huggingface": json.dumps({"info": {"features": hf_features(_SCHEMAS[name])}})}
    schema = _SCHEMAS[name].with_metadata(metadata)
    count, waiting, size = 0, list[dict[str, Any]](), 0
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        for preference in preferences:
            waiting.append(exported(name, preference))
            size += sum(map(len, [*preference.images, *preference.rejected_images]))
            count += 1
            if len(waiting) >= ROWS_A_GROUP or size >= PICTURES_A_GROUP:
                writer.write_table(pa.Table.from_pylist(waiting, schema=schema))
                waiting, size = [], 0
        if waiting:
            writer.write_table(pa.Table.from_pylist(waiting, schema=schema))
    return count


def _write_folder(name: str, preferences: Iterable[Preference], folder: Path) -> int:
    (folder / PICTURES).mkdir()
    count = 0

    def beside(content: bytes) -> str:
        digest = hashlib.sha256(content).hexdigest()[:32]
        ending = next((e for mark, e in _ENDINGS.items() if content.startswith(mark)), ".png")
        path = folder / PICTURES / f"{digest}{ending}"
        if not path.exists():
            path.write_bytes(content)
        return f"{PICTURES}/{path.name}"

    with (folder / ROWS).open("w", encoding="utf-8") as file:
        for preference in preferences:
            row = exported(name, preference, beside)
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
            count += 1
    if name == llama_factory.NAME:
        _write_index(folder / llama_factory.INDEX)
    return count


def _write_index(path: Path) -> None:
    """LLaMA-Factory's dataset_info.json, in which `preferences` is the name of the data set."""
    columns = {"messages": "conversations", **{n: n for n in ("chosen", "rejected", "images")}}
    entry = {"file_name": ROWS, "formatting": "sharegpt", "ranking": True, "columns": columns}
    path.write_text(json.dumps({"preferences": entry}, indent=2) + "\n", encoding="utf-8")
