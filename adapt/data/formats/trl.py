"""TRL's vision preference data: prompt, chosen and rejected as texts or as messages.

The pictures of `images` (a list even for one) or `image`; messages may mark their places with
{type: image}. A prompt may be implicit: then both answers begin with the same conversation.
What our own export adds (id, scores, objects, ...) is read back.
"""

from collections.abc import Iterator, Sequence

from adapt.data.formats.dialogue import compared, messages_of, with_pictures
from adapt.data.formats.raw import (
    Raw,
    Record,
    columns_of,
    has,
    pictures,
    pictures_of,
    present,
    value,
)

NAME = "trl"
KIND = "preference"
ABOUT = "TRL: prompt, chosen, rejected as texts or messages, and images or image"

PROMPTS = ("prompt", "pompt")  # a published card misspells it
KEPT = ("id", "image_id", "kind", "objects", "absent")
SCORES = {
    "chosen_score": ("chosen_score", "score_chosen"),
    "rejected_score": ("rejected_score", "score_rejected"),
}


def recognised(head: Sequence[Record]) -> str:
    """A pair with a prompt, or with messages that hold it, beside a column of pictures."""
    prompt = next((name for name in PROMPTS if has(head, name)), "")
    pictured = next((name for name in ("images", "image") if name in columns_of(head)), "")
    if not (has(head, "chosen", "rejected") and pictured):
        return ""
    if prompt:
        return f"columns {prompt}, chosen, rejected, {pictured}"
    is_implicit = all(isinstance(record.get("chosen"), list | tuple) for record in head)
    is_other = {"conversations", "messages", "question", "instruction"} & columns_of(head)
    if is_implicit and not is_other:
        return f"columns chosen and rejected with whole conversations, {pictured}"
    return ""


def mapped(record: Record) -> Iterator[Raw]:
    """One row."""
    name = present(record, *PROMPTS)
    turns = messages_of(record[name], name) if name else []
    row = compared(turns, value(record, "chosen"), value(record, "rejected"))
    row |= {column: record[column] for column in KEPT if record.get(column) is not None}
    for column, names in SCORES.items():
        if found := present(record, *names):
            row[column] = record[found]
    row["rejected_images"] = pictures(record.get("rejected_images"), "rejected_images")
    yield with_pictures(row, pictures_of(record, "images", "image"))
