"""ms-swift's preference data: messages that end with the chosen answer, and the rejected one.

Columns have aliases; `objects` names things and their boxes, in pixels (`real`) or shares of the
picture (`norm1`). Boxes are taken for boxes of the upright picture. `<ref-object>` in a text stands
for the next name; `<bbox>` stands for a box in a form of each model's own, and is refused.
"""

from collections.abc import Iterator, Sequence
from typing import Any

from adapt.data.formats.dialogue import (
    Message,
    alternating,
    answered,
    asked,
    messages,
    with_pictures,
)
from adapt.data.formats.raw import (
    Raw,
    Record,
    RowProblem,
    expect,
    has,
    pictures_of,
    present,
    text,
)
from adapt.params import shown

NAME = "ms-swift"
KIND = "preference"
ABOUT = "ms-swift: messages (the last is chosen) with rejected_response or rejected_messages"

MESSAGES = ("messages", "conversation", "conversations")
QUERY = ("query", "prompt", "input", "instruction", "question", "problem")
RESPONSE = (
    "response",
    "answer",
    "output",
    "targets",
    "target",
    "answer_key",
    "solution",
    "text",
    "completion",
    "content",
)
REJECTED = ("rejected_response", "rejected_messages")
REFERENCE, BOX = "<ref-object>", "<bbox>"
UNITS = {"real": "pixels", "norm1": "share"}
ABOUT_OBJECTS = "objects were taken for all that the picture shows"


def recognised(head: Sequence[Record]) -> str:
    """A rejected response or conversation, which only ms-swift calls so."""
    rejected = next((name for name in REJECTED if has(head, name)), "")
    asked_by = next((name for name in (*MESSAGES, *QUERY) if has(head, name)), "")
    return f"columns {asked_by}, {rejected}" if rejected and asked_by else ""


def mapped(record: Record) -> Iterator[Raw]:
    """One row, or one for each of several rejected responses."""
    names, found, notes = _objects(record)
    before, chosen = answered(_named(_turns(record), names), "messages")
    row = asked(before, "messages") | {"chosen": chosen, "objects": found}
    row["notes"] = [*row["notes"], *notes]
    row["rejected_images"] = pictures_of(record, "rejected_images")
    row = with_pictures(row, pictures_of(record, "images", "image"))
    rejected = _rejected(record, before)
    for number, answer in enumerate(rejected, start=1):
        row_id = record.get("id")
        if row_id is not None and len(rejected) > 1:
            row_id = f"{row_id}-{number}"
        yield row | {"id": row_id, "rejected": answer}


def _named(turns: Sequence[Message], names: Sequence[Any]) -> list[Message]:
    """The turns with the names of objects in place of their signs, one after the other."""
    waiting, named = list(names), []
    for turn in turns:
        if BOX in turn.text:
            raise RowProblem(
                f"messages: {BOX} stands for a box in a model's own form; write it out"
            )
        parts = turn.text.split(REFERENCE)
        if len(parts) - 1 > len(waiting):
            raise RowProblem(f"messages: {REFERENCE} more often than objects have names (ref)")
        used, waiting = waiting[: len(parts) - 1], waiting[len(parts) - 1 :]
        words = [expect(name, str, "objects.ref") for name in used]
        text = parts[0] + "".join(w + part for w, part in zip(words, parts[1:], strict=True))
        named.append(Message(turn.role, text, turn.pictures))
    return named


def _turns(record: Record) -> list[Message]:
    if name := present(record, *MESSAGES):
        return messages(record[name], name)
    query, response = present(record, *QUERY), present(record, *RESPONSE)
    if not query or not response:
        raise RowProblem("messages: column messages, or query and response, is missing or empty")
    system = [Message("system", text(record, "system"))] if record.get("system") else []
    history = alternating(expect(record.get("history") or [], list, "history"), "history")
    last = [Message("user", text(record, query)), Message("assistant", text(record, response))]
    return [*system, *history, *last]


def _rejected(record: Record, before: Sequence[Message]) -> list[str]:
    """The rejected answers; a rejected conversation has to be the chosen one up to its end."""
    if present(record, "rejected_response"):
        found = record["rejected_response"]
        several = found if isinstance(found, list | tuple) else [found]
        return [expect(one, str, "rejected_response") for one in several]
    if not present(record, "rejected_messages"):
        raise RowProblem(
            "rejected_response: column rejected_response or rejected_messages is empty"
        )
    turns, rejected = answered(
        messages(record["rejected_messages"], "rejected_messages"), "rejected_messages"
    )
    texts = [turn.text for turn in turns]
    if texts and texts != [turn.text for turn in before][-len(texts) :]:
        raise RowProblem("rejected_messages: the conversation is another than that of messages")
    return [rejected]


def _objects(record: Record) -> tuple[list[Any], list[Raw] | None, list[str]]:
    """Names that texts refer to; things with their boxes, None where nobody knows; and notes."""
    if not (found := record.get("objects")):
        return [], None, []
    found = expect(found, dict, "objects")
    names = expect(found.get("ref") or [], list, "objects.ref")
    boxes = expect(found.get("bbox") or [], list, "objects.bbox")
    if not boxes:
        return list(names), None, []
    unit = found.get("bbox_type") or "real"
    if not isinstance(unit, str) or unit not in UNITS:
        raise RowProblem(f"objects.bbox_type: {shown(unit)} is not one of {', '.join(UNITS)}")
    numbers = expect(found.get("image_id") or [0] * len(names), list, "objects.image_id")
    for column, values in (("bbox", boxes), ("image_id", numbers)):
        if len(values) != len(names):
            raise RowProblem(f"objects: {len(names)} ref for {len(values)} {column}")
    things = [
        {"name": _object_name(name), "box": box, "unit": UNITS[unit], "picture": number}
        for name, box, number in zip(names, boxes, numbers, strict=True)
    ]
    return list(names), things, [ABOUT_OBJECTS]


def _object_name(name: Any) -> Any:
    return name.strip().lower() if isinstance(name, str) else name
