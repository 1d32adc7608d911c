"""JSON as people keep answers in it, whatever its file is called.

    [{"id": 1, "answer": "Yes"}, ...]         a list of rows
    {"id": 1, "answer": "Yes"} ...            rows one after the other, a line each or not
    {"1": "Yes", ...}                         answers by id, or {"1": {"answer": "Yes"}, ...}
    {"results": [...], "model": "..."}        one of these under one key, whatever stands beside it
    {"id": {"0": 1}, "answer": {"0": "Yes"}}  pandas' to_json, with each of its `orient`s that names
                                              the columns: columns, index, records, split, table
    {"id": [1], "answer": ["Yes"]}            a column after the other

A key that is there twice in one object is a mistake: the parser would forget the first.
"""

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from adapt.params import InputError
from adapt.score.content import columns_shown, no_json, shown
from adapt.score.layout import Layout

Numbered = Iterator[tuple[int, Any]]
_MOST = 4_000_000  # objects and lists, each of which takes a hundred bytes and more
_GAP = re.compile(r"[\s\x1e]*")  # between values; RFC 7464 begins each with a record separator


def records(text: str, name: str, layout: Layout) -> Numbered:
    """The number of each row and its value, not yet known to be an object."""
    if text.count("{") + text.count("[") > _MOST:
        raise InputError(f"{name}: has more than {_MOST:,} objects and lists")
    try:
        values = list(_values(text))
        if len(values) == 1:
            return enumerate(_rows(values[0][1], name, layout), 1)
    except (RecursionError, ValueError) as error:
        raise error if isinstance(error, InputError) else _mistake(error, text, name) from None
    # JSON Lines: a row is a line.
    lines = [line for line, _ in values]
    by_line = len(set(lines)) == len(lines) == len(_filled(text))
    return iter(values if by_line else enumerate((value for _, value in values), 1))


def _values(text: str) -> Iterator[tuple[int, Any]]:
    """All values of a text, each with the line in which it begins."""
    decoder = json.JSONDecoder(object_pairs_hook=_object)
    place, line, end = 0, 1, len(text)
    while (start := _after_gap(text, place)) < end:
        line += text.count("\n", place, start)
        value, place = decoder.raw_decode(text, start)
        yield line, value
        line += text.count("\n", start, place)


def _after_gap(text: str, place: int) -> int:
    gap = _GAP.match(text, place)
    return gap.end() if gap else place


def _object(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) < len(pairs):
        doubled, _ = Counter(key for key, _ in pairs).most_common(1)[0]
        raise _DoubledError(f"has an object with the key {shown(doubled)} twice")
    return value


class _DoubledError(ValueError):
    pass


def _filled(text: str) -> list[tuple[int, str]]:
    return [(number, line) for number, line in enumerate(text.split("\n"), 1) if line.strip()]


def _mistake(error: Exception, text: str, name: str) -> InputError:
    """The line that is wrong: of JSON Lines by itself, and else where the parser stopped."""
    lines = _filled(text)
    for number, line in lines if text.lstrip()[:1] != "[" else ():
        try:
            list(_values(line))
        except (RecursionError, ValueError) as own:
            # Where lines before it are rows, so is this one.
            if number != lines[0][0] or len(lines) == 1 or _rows_follow(lines):
                return InputError(f"{name} row {number}: {_problem(own)}")
            break
    at = f" line {error.lineno}" if isinstance(error, json.JSONDecodeError) else ""
    return InputError(f"{name}{at if len(lines) > 1 else ''}: {_problem(error)}")


def _rows_follow(lines: Sequence[tuple[int, str]]) -> bool:
    try:
        return any(isinstance(value, dict) for _, value in _values(lines[1][1]))
    except (RecursionError, ValueError):
        return False


def _problem(error: Exception) -> str:
    return str(error) if isinstance(error, _DoubledError) else no_json(error)


def _rows(value: Any, name: str, layout: Layout) -> Sequence[Any]:
    """The rows in one value, in order."""
    if isinstance(value, list):
        return value
    if not isinstance(value, dict) or not value:
        return [value] if value != {} else []
    # 1. pandas' split, and columns by name: of dicts, or of lists of one length.
    if isinstance(value.get("columns"), list) and isinstance(value.get("data"), list):
        return _split(value["columns"], value["data"], name)
    if any(map(layout.knows, value)):
        return _transposed(value, layout) or [value]
    # 2. One list, under whatever key; a list of rows, not a row's list of words.
    lists = [key for key, of in value.items() if isinstance(of, list) and _are_rows(of, layout)]
    if len(lists) > 1:
        problem = f"has {len(lists)} lists of rows ({columns_shown(lists)}); keep the answers alone"
        raise InputError(f"{name}: {problem}")
    if lists:
        return value[lists[0]]
    # 3. Answers by id.
    return _by_id(value, name, layout)


def _are_rows(items: Sequence[Any], layout: Layout) -> bool:
    kinds = (dict,) if layout.id else (dict, str)
    return bool(items) and all(isinstance(item, kinds) for item in items)


def _split(columns: Sequence[Any], data: Sequence[Any], name: str) -> list[dict[str, Any]]:
    rows = []
    for number, cells in enumerate(data, 1):
        if not isinstance(cells, list) or len(cells) != len(columns):
            have = f"{len(cells)} cells" if isinstance(cells, list) else shown(cells)
            problem = f"is {have}, and there are {len(columns)} columns"
            raise InputError(f"{name} row {number}: {problem}")
        rows.append(dict(zip(map(str, columns), cells, strict=True)))
    return rows


def _transposed(value: Mapping[str, Any], layout: Layout) -> list[dict[str, Any]]:
    """Rows from columns: all of them {index: cell} with one index, or lists of one length."""
    columns = list(value.values())
    if all(isinstance(column, dict) and column.keys() == columns[0].keys() for column in columns):
        return [{name: value[name][key] for name in value} for key in columns[0]]
    theirs = [name for name in value if layout.rename.get(name, name) == layout.id]
    lists = all(isinstance(column, list) for column in columns)
    if theirs and lists and len({len(column) for column in columns}) == 1:
        return [dict(zip(value, cells, strict=True)) for cells in zip(*columns, strict=True)]
    return []


def _by_id(value: Mapping[str, Any], name: str, layout: Layout) -> Sequence[Any]:
    objects = [of for of in value.values() if isinstance(of, dict)]
    if len(objects) == 1 and not any(map(layout.knows, objects[0])):
        return _rows(objects[0], name, layout)  # which stands under a key, alone or beside texts
    if len(objects) == len(value):
        return [of if _has_id(of, layout) else {layout.id: key, **of} for key, of in value.items()]
    if not layout.id or any(isinstance(of, dict | list) for of in value.values()):
        return [value]
    return [{layout.id: key, layout.answer: answer} for key, answer in value.items()]


def _has_id(row: Mapping[str, Any], layout: Layout) -> bool:
    """Rows by pandas' index have an id of their own; and in some files rows need none."""
    return not layout.id or any(layout.rename.get(name, name) == layout.id for name in row)
