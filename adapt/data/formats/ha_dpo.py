"""HA-DPO: corrected descriptions of Visual Genome's pictures, and yes/no questions beside them.

desc_data.json {image_id: {chosen: [...], rejected: [...]}} gives every pair of the two lists; its
question is ours, because it was drawn from templates there. Of pope_data.json the rows whose answer
was right (`correct`) hold no pair.
"""

from collections.abc import Iterator, Sequence
from typing import Any

from adapt.data.formats.raw import (
    Raw,
    Record,
    RowProblem,
    columns_of,
    expect,
    has,
    present,
    text,
    value,
)

NAME = "ha-dpo"
KIND = "preference"
ABOUT = "HA-DPO: desc_data.json (lists chosen and rejected by image_id), pope_data.json (reject)"

QUESTION = "Describe this image in detail."
FOLDERS = ("VG_100K", "VG_100K_2", "VG/VG_100K", "VG/VG_100K_2", "images", "")


def recognised(head: Sequence[Record]) -> str:
    """Lists of answers by picture, or a column `reject`."""
    if has(head, "chosen", "reject", "question"):
        return "columns question, chosen, reject (pope_data.json)"
    is_lists = all(
        isinstance(record.get(name), list | tuple)
        and all(isinstance(one, str) for one in record[name])
        for record in head
        for name in ("chosen", "rejected")
    )
    is_other = {"prompt", "pompt", "question", "conversations", "instruction"} & columns_of(head)
    if head and is_lists and not is_other:
        return "lists chosen and rejected by picture (desc_data.json)"
    return ""


def mapped(record: Record) -> Iterator[Raw]:
    """Every pair of a description, or the one of a question that was answered wrongly."""
    number = value(record, *(name for name in ("image_id", "image", "id", "key")))
    images = [{"bytes": None, "path": _places(number)}]
    about = {"image_id": str(number), "images": images}
    if present(record, "reject", "question"):
        if record.get("correct") is True or str(record.get("correct")).lower() == "true":
            return
        answers = {"chosen": text(record, "chosen"), "rejected": text(record, "reject")}
        yield {**about, "question": text(record, "question"), **answers}
        return
    for chosen in _answers(record, "chosen"):
        for rejected in _answers(record, "rejected"):
            yield {**about, "question": QUESTION, "chosen": chosen, "rejected": rejected}


def _answers(record: Record, column: str) -> list[str]:
    found = expect(value(record, column), list, column)
    if not found:
        raise RowProblem(f"{column}: is an empty list")
    return [expect(one, str, column) for one in found]


def _places(number: Any) -> list[str]:
    """Where Visual Genome's archives put a picture, relative to the file."""
    name = str(number)
    name = name if name.lower().endswith((".jpg", ".jpeg", ".png")) else f"{name}.jpg"
    return [f"{folder}/{name}" if folder else name for folder in FOLDERS]
