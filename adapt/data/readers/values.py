"""One row of JSON as values: what the standard allows, with bounds, and a short reason otherwise.

NaN is read as null, which is what tools that write it mean by it: a gap in a table.
"""

import json
import math
from collections.abc import Mapping
from typing import Any

from adapt.data.readers.record import MAX_COLUMNS, MAX_DEPTH, Unreadable
from adapt.params import shown


def row(content: bytes) -> Mapping[str, Any]:
    """The JSON object in `content`; `Unreadable` says why it is none.

    >>> row(b'{"chosen_score": NaN, "idx": 7}')
    {'chosen_score': None, 'idx': 7}
    """
    values = parsed(content)
    if not isinstance(values, dict):
        raise Unreadable(f"is {shown(values)}, not an object with columns")
    return values


def parsed(content: bytes) -> Any:
    """Any JSON value; `Unreadable` for everything that could not be stored or shown later."""
    try:
        text = content.decode("utf-8")
        value = _DECODER.decode(text)
    except UnicodeDecodeError as error:
        byte = error.object[error.start]
        raise Unreadable(f"is not UTF-8 (byte 0x{byte:02x}); save the file as UTF-8") from None
    except json.JSONDecodeError as error:
        raise Unreadable(f"is no JSON ({error.msg}, column {error.colno})") from None
    except RecursionError:
        raise Unreadable(_TOO_DEEP) from None
    except Unreadable:
        raise
    except ValueError:  # Python reads no integer of more than 4,300 digits
        raise Unreadable("holds a number of thousands of digits") from None
    if content.count(b"[") + content.count(b"{") > MAX_DEPTH:
        require_flat(value)
    if b"\\ud" in content or b"\\uD" in content:
        _require_whole_characters(value)
    return value


def require_flat(value: Any) -> None:
    """`Unreadable` if lists and mappings lie in each other more than `MAX_DEPTH` deep."""
    level, depth = [value], 0
    while level:
        containers = [item for item in level if isinstance(item, list | dict)]
        level = [
            inner
            for item in containers
            for inner in (item.values() if isinstance(item, dict) else item)
        ]
        depth += bool(containers)
        if depth > MAX_DEPTH:
            raise Unreadable(_TOO_DEEP)


def _require_whole_characters(value: Any) -> None:
    """Half of a surrogate pair is text in Python, but can be written into no file."""
    try:
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError:
        raise Unreadable("holds half a character (a lone surrogate)") from None


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        names = [name for name, _ in pairs]
        double = next(name for name in names if names.count(name) > 1)
        raise Unreadable(f"has the key {shown(double)} twice")
    if len(values) > MAX_COLUMNS:
        raise Unreadable(f"has {len(values)} columns, more than {MAX_COLUMNS}")
    return values


def _constant(name: str) -> None:
    if name != "NaN":
        raise Unreadable(f"holds {name}, which JSON does not have")


def _float(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise Unreadable(f"holds {shown(text)}, a number too large to be stored")
    return value


_TOO_DEEP = f"is nested more than {MAX_DEPTH} levels deep"
_DECODER = json.JSONDecoder(object_pairs_hook=_object, parse_constant=_constant, parse_float=_float)
