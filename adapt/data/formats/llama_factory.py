"""LLaMA-Factory's ranking data: sharegpt or alpaca, with the columns of dataset_info.json.

That file, if it is there, says which of the others are ranking data, which column of theirs is
which of LLaMA-Factory's, and the names inside their messages. Paths of pictures are relative to the
file or to `data.pictures`, which is what `media_dir` is there. LLaMA-Factory does not turn pictures
by EXIF; here every picture is stored upright.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from adapt.data.formats.dialogue import Message, alternating, compared, messages, with_pictures
from adapt.data.formats.raw import (
    Layout,
    Raw,
    Record,
    RowProblem,
    expect,
    has,
    pictures_of,
    present,
    text,
    value,
)
from adapt.params import shown

NAME = "llama-factory"
KIND = "preference"
ABOUT = (
    "LLaMA-Factory ranking: conversations, chosen, rejected as {from, value} (sharegpt), or "
    "instruction, input, chosen, rejected (alpaca)"
)

MESSAGES = ("conversations", "messages")
INDEX = "dataset_info.json"
# What LLaMA-Factory calls a column in dataset_info.json: the name that `mapped` reads.
COLUMNS = {
    "messages": "conversations",
    "prompt": "instruction",
    "query": "input",
    **{
        name: name
        for name in ("images", "videos", "audios", "chosen", "rejected", "system", "history")
    },
}
TAGS = {"role_tag": "from", "content_tag": "value"}
ROLES = {"user_tag": "human", "assistant_tag": "gpt", "system_tag": "system"}


def recognised(head: Sequence[Record]) -> str:
    """Either form; a single message as `chosen` tells sharegpt from others' conversations."""
    for name in MESSAGES:
        if has(head, name, "chosen", "rejected"):
            return f"columns {name}, chosen, rejected (sharegpt)"
    if has(head, "instruction", "chosen", "rejected"):
        return "columns instruction, chosen, rejected (alpaca)"
    return ""


def mapped(record: Record) -> Iterator[Raw]:
    """One row of either form."""
    turns = _turns(record)
    if record.get("system"):
        turns = [Message("system", text(record, "system")), *turns]
    row = compared(turns, value(record, "chosen"), value(record, "rejected"))
    row["id"] = record.get("id")
    yield with_pictures(row, pictures_of(record, "images", "image"))


def _turns(record: Record) -> list[Message]:
    if name := present(record, *MESSAGES):
        return messages(record[name], name)
    question = text(record, "instruction")
    if present(record, "input"):
        question = f"{question}\n{text(record, 'input')}"
    history = expect(record.get("history") or [], list, "history")
    return [*alternating(history, "history"), Message("user", question)]


def layouts(index: Mapping[str, Any]) -> dict[str, Layout]:
    """The files that dataset_info.json names, by their path from the index."""
    found = {}
    for entry in index.values():
        if not isinstance(entry, Mapping):
            continue
        name = entry.get("file_name")
        if not isinstance(name, str):
            continue
        columns = {COLUMNS[k]: v for k, v in _mapping(entry, "columns").items() if k in COLUMNS}
        tags = {k: v for k, v in _mapping(entry, "tags").items() if k in TAGS | ROLES}
        found[name] = Layout(columns=columns, tags=tags, skip=not entry.get("ranking"))
    return found


def _mapping(entry: Record, key: str) -> Mapping[str, str]:
    """The names in it; anything else than a text is none."""
    found = entry.get(key)
    pairs = found.items() if isinstance(found, Mapping) else ()
    return {name: one for name, one in pairs if isinstance(one, str)}


def arranged(record: Record, layout: Layout) -> Record:
    """A record with the columns and the names inside messages that `mapped` reads."""
    renamed = {ours: record.get(theirs) for ours, theirs in layout.columns.items()}
    record = {**{k: v for k, v in record.items() if k not in layout.columns.values()}, **renamed}
    if not layout.tags:
        return record
    spoken = ("conversations", "chosen", "rejected")
    return record | {k: _untagged(record[k], layout.tags) for k in spoken if record.get(k)}


def _untagged(found: Any, tags: Mapping[str, str]) -> Any:
    if isinstance(found, list | tuple):
        return [_untagged(one, tags) for one in found]
    if not isinstance(found, Mapping):
        return found
    names = {tags.get(tag, usual): usual for tag, usual in TAGS.items()}
    roles = {tags.get(tag, usual): usual for tag, usual in ROLES.items()}
    turn = {names.get(key, key): one for key, one in found.items()}
    role = turn.get("from")
    if not isinstance(role, str) or role not in roles:
        raise RowProblem(f"conversations: a turn of {shown(role)}; known: {', '.join(roles)}")
    return turn | {"from": roles[role]}
