"""RLHF-V: the pair is JSON inside the column `text`; people corrected the rejected answer."""

from collections.abc import Iterator, Mapping, Sequence

from adapt.data.formats.dialogue import compared, messages_of, with_pictures
from adapt.data.formats.raw import (
    Raw,
    Record,
    RowProblem,
    example,
    expect,
    has,
    parsed,
    pictures_of,
    text,
)

NAME = "rlhf-v"
KIND = "preference"
ABOUT = "RLHF-V: a column text with {question, chosen, rejected} as JSON, and image"


def recognised(head: Sequence[Record]) -> str:
    """A column `text` whose JSON has the pair; a damaged first row is not taken for a sign."""
    if not (has(head, "text") and (has(head, "image") or has(head, "image_path"))):
        return ""
    if isinstance(example(head, "text"), Mapping):
        return (
            "a column text with keys and values" if has([example(head, "text")], "chosen") else ""
        )
    if any('"rejected"' in str(record.get("text")) for record in head):
        return "a column text that holds question, chosen and rejected as JSON"
    return ""


def mapped(record: Record) -> Iterator[Raw]:
    """One row; `text` may also be parsed already, as some copies have it."""
    pair = record.get("text")
    if not isinstance(pair, Mapping):
        pair = expect(parsed(text(record, "text"), "text"), dict, "text")
    missing = [name for name in ("question", "chosen", "rejected") if pair.get(name) is None]
    if missing:
        raise RowProblem(f"text: has no {' and no '.join(missing)}")
    row = compared(messages_of(pair["question"], "question"), pair["chosen"], pair["rejected"])
    yield with_pictures(row | {"id": record.get("idx")}, pictures_of(record, "image", "image_path"))
