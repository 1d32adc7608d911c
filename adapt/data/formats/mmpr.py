"""MMPR: flat pairs in JSONL, listed by a meta.json with the folder of each file's pictures.

Of meta.json {name: {root, annotation, repeat_time, length}}, root and annotation are read; a file
is read once, whatever its repeat_time. Ids, where there are any, count from 0 in every file and are
not read. `image` may be a list; rows without one are text alone and refused.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from adapt.data.formats.dialogue import compared, messages_of, with_pictures
from adapt.data.formats.raw import Layout, Raw, Record, columns_of, has, pictures_of, value

NAME = "mmpr"
KIND = "preference"
ABOUT = "MMPR: question, chosen, rejected, image (a path or a list), and meta.json"

INDEX = "meta.json"


def recognised(head: Sequence[Record]) -> str:
    """The plainest form of a pair with its picture."""
    pictured = next((name for name in ("image", "images") if name in columns_of(head)), "")
    if has(head, "question", "chosen", "rejected") and pictured:
        return f"columns question, chosen, rejected, {pictured}"
    return ""


def mapped(record: Record) -> Iterator[Raw]:
    """One row."""
    turns = messages_of(value(record, "question"), "question")
    row = compared(turns, value(record, "chosen"), value(record, "rejected"))
    yield with_pictures(row, pictures_of(record, "image", "images"))


def layouts(index: Mapping[str, Any]) -> dict[str, Layout]:
    """The files that meta.json names, by their path from it, and the folders of their pictures."""
    found = {}
    for entry in index.values():
        if not isinstance(entry, Mapping):
            continue
        name, root = entry.get("annotation"), entry.get("root")
        if isinstance(name, str):
            found[name] = Layout(root=root if isinstance(root, str) else "")
    return found
