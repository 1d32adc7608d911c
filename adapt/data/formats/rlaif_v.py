"""RLAIF-V: question, chosen and rejected in columns of their own; a model ranked the answers."""

from collections.abc import Iterator, Sequence

from adapt.data.formats.dialogue import compared, messages_of, with_pictures
from adapt.data.formats.raw import Raw, Record, has, pictures_of, value

NAME = "rlaif-v"
KIND = "preference"
ABOUT = "RLAIF-V: question, chosen, rejected, image and origin_dataset or ds_name"

ORIGINS = ("origin_dataset", "ds_name", "origin_split")


def recognised(head: Sequence[Record]) -> str:
    """The columns of a pair beside where it comes from."""
    origin = next((name for name in ORIGINS if has(head, name)), "")
    if origin and has(head, "question", "chosen", "rejected"):
        return f"columns question, chosen, rejected, {origin}"
    return ""


def mapped(record: Record) -> Iterator[Raw]:
    """One row; `idx` is a text here and its id."""
    turns = messages_of(value(record, "question"), "question")
    row = compared(turns, value(record, "chosen"), value(record, "rejected"))
    yield with_pictures(row | {"id": record.get("idx")}, pictures_of(record, "image", "image_path"))
