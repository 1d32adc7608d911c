"""What every format maps to: raw rows in our column names, unchecked, and the problems on the way.

A raw row is a mapping with any of the columns of `adapt/data/columns.py`, in which these differ:

    images, rejected_images   [{bytes, path}]; a path may be a list: the first that is there
    objects                   [{name, colour, box, unit, picture}]; unit "pixels" or "share" (the
                              default) of the upright picture, picture its number from 0
    split                     the split that the source itself gives the row
    notes                     short sentences about what was left out, such as a system turn

`adapt/data/validation.py` makes a record of it, or says why it cannot be one.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from adapt.params import InputError, shown

Record = Mapping[str, Any]  # a row as it was published
Raw = dict[str, Any]  # a row in our column names


@dataclass(frozen=True)
class Layout:
    """How one file of a source is laid out, where a file beside it says so.

    `columns` maps the name that a format reads to the file's own, `tags` the names inside messages;
    `root` is the folder of its pictures; a file to `skip` holds no preference data.
    """

    columns: Mapping[str, str] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)
    root: str = ""
    skip: bool = False


VIDEO = ("video", "videos", "audios", "audio")
PICTURES = ("images", "image", "img_path", "image_path")


class RowProblem(InputError):
    """Why a record cannot be mapped; its row is quarantined with this reason."""


def present(record: Record, *columns: str) -> str:
    """The first of `columns` that the record has a value in, or ""."""
    return next((name for name in columns if record.get(name) not in (None, "", [])), "")


def value(record: Record, *columns: str) -> Any:
    """The value of the first of `columns` that is there, a column's aliases behind its name."""
    for name in columns:
        if record.get(name) is not None:
            return record[name]
    missing = " or ".join(columns)
    raise RowProblem(f"{columns[0]}: column {missing} is missing or empty")


def text(record: Record, *columns: str) -> str:
    """A value that has to be a text."""
    found = value(record, *columns)
    return expect(found, str, columns[0])


def listed(found: Any) -> Any:
    """An array of numpy's, as pandas makes of lists, as a list; anything else as it is."""
    return found.tolist() if hasattr(found, "tolist") else found


def expect(found: Any, kind: type, column: str) -> Any:
    """`found`, which has to be of a type; a list may be a tuple or an array of numpy's as well."""
    found = listed(found)
    types, name = _TYPES[kind]
    if isinstance(found, types):
        return found
    raise RowProblem(f"{column}: expected {name}, got {shown(found)}")


_TYPES: dict[type, tuple[tuple[type, ...], str]] = {
    str: ((str,), "a text"),
    bytes: ((bytes,), "bytes"),
    list: ((list, tuple), "a list"),
    dict: ((Mapping,), "keys and values"),
}


def parsed(content: str, column: str) -> Any:
    """JSON inside a text."""
    try:
        return json.loads(content)
    except RecursionError:
        raise RowProblem(f"{column}: JSON that is nested too deeply") from None
    except ValueError as error:
        raise RowProblem(f"{column}: not JSON ({error})") from None


def pictures(found: Any, column: str = "images") -> list[dict[str, Any]]:
    """One picture or a list of them as [{bytes, path}]; an empty list where there is none."""
    if found is None or found == "":
        return []
    found = listed(found)
    several = found if isinstance(found, list | tuple) else [found]
    return [_picture(one, column) for one in several]


def _picture(one: Any, column: str) -> dict[str, Any]:
    if isinstance(one, Mapping) and {"bytes", "path", "url", "image"} & set(one):
        content = one.get("bytes")
        if isinstance(content, str):  # in JSON, bytes can only be base64
            return {"bytes": None, "path": f"data:;base64,{content}"}
        if content is not None:
            return {"bytes": expect(content, bytes, column), "path": _name(one.get("path"))}
        return _picture(one.get("path") or one.get("url") or one.get("image"), column)
    if isinstance(one, bytes | bytearray):
        return {"bytes": bytes(one), "path": None}
    if isinstance(one, str) and one:
        return {"bytes": None, "path": one}
    kind = "nothing" if one is None or one == "" else type(one).__name__
    raise RowProblem(f"{column}: expected a path or the bytes of a picture, got {kind}")


def _name(path: Any) -> str | None:
    return path if isinstance(path, str) else None


def pictures_of(record: Record, *columns: str) -> list[dict[str, Any]]:
    """The pictures of a record, from the first of `columns` that has any."""
    name = present(record, *(columns or PICTURES))
    return pictures(record[name], name) if name else []


def rows_of(found: Any, column: str) -> list[Mapping[str, Any]]:
    """A list of records, also where `datasets` stored it as a record of lists.

    >>> rows_of({"model": ["a", "b"], "score": [1, 2]}, "completions")
    [{'model': 'a', 'score': 1}, {'model': 'b', 'score': 2}]
    """
    found = listed(found)
    if not isinstance(found, Mapping):
        return [expect(one, dict, column) for one in expect(found, list, column)]
    columns = {
        name: rows_of(part, column) if isinstance(part, Mapping) else expect(part, list, column)
        for name, part in found.items()
    }
    lengths = {len(part) for part in columns.values()}
    if len(lengths) > 1:
        raise RowProblem(f"{column}: lists of different lengths")
    return [
        {name: part[i] for name, part in columns.items()} for i in range(max(lengths, default=0))
    ]


def refuse_video(record: Record) -> None:
    """Rows about a video or a sound are told apart from those whose picture is missing."""
    if name := present(record, *VIDEO):
        raise RowProblem(f"{name}: the row is about a video or sound; only pictures are read")


def columns_of(head: Sequence[Record]) -> set[str]:
    """The columns that any of the first rows has a value in."""
    return {name for record in head for name in record if record[name] is not None}


def has(head: Sequence[Record], *columns: str) -> bool:
    """Whether the first rows have all of these columns."""
    return set(columns) <= columns_of(head)


def example(head: Sequence[Record], column: str) -> Any:
    """The first value of a column, or None."""
    return next((record[column] for record in head if record.get(column) is not None), None)
