"""The pages of a parquet file, found from their headers before any of them is unpacked.

A few kilobytes of parquet can say that they unpack to gigabytes, and what the footer says of sizes
need not be true: the decoder believes the header of each page. The headers are written in Thrift's
compact protocol, of which this module reads what they need (Apache Parquet's `parquet.thrift`).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

import pyarrow.parquet as pq

_HEADER = 2**10  # bytes in which most headers fit
_LONGEST = 2**20  # bytes of a header; it may hold the smallest and the largest value of its page
_DEEPEST = 8  # structs in each other

Fields = dict[int, Any]  # by Thrift's number of the field


class Damaged(ValueError):
    """A page header that is none."""


@dataclass(frozen=True, kw_only=True)
class Page:
    """`size` is in bytes, unpacked and without the header; `values` count nulls."""

    size: int
    header: int
    values: int
    is_dictionary: bool


def pages(file: BinaryIO, column: pq.ColumnChunkMetaData) -> Iterator[Page]:
    """The pages of one column in one row group; `Damaged` where a header cannot be read."""
    at = column.data_page_offset
    if column.has_dictionary_page and column.dictionary_page_offset:
        at = min(at, column.dictionary_page_offset)
    end = at + column.total_compressed_size
    while at < end:
        fields, length = _header(file, at)
        unpacked, packed = fields.get(2), fields.get(3)
        if (
            not isinstance(unpacked, int)
            or not isinstance(packed, int)
            or min(unpacked, packed) < 0
        ):
            raise Damaged("a page header without sizes")
        about = fields.get(5) or fields.get(7) or fields.get(8) or {}
        values = about.get(1, 0) if isinstance(about, dict) else 0
        yield Page(size=unpacked, header=length, values=values, is_dictionary=7 in fields)
        at += length + packed


def _header(file: BinaryIO, at: int) -> tuple[Fields, int]:
    size = _HEADER
    while size <= _LONGEST:
        file.seek(at)
        try:
            return _struct(file.read(size), 0, 0)
        except IndexError:  # it is longer, or the file ends
            size *= 8
    raise Damaged("a page header without an end")


def _struct(data: bytes, at: int, depth: int) -> tuple[Fields, int]:
    """The fields of a struct at byte `at`, and the byte behind it; IndexError where data ends."""
    if depth > _DEEPEST:
        raise Damaged("a page header that is nested too deeply")
    fields: Fields = {}
    number = 0
    while byte := data[at]:
        at += 1
        if byte >> 4:
            number += byte >> 4
        else:
            number, at = _integer(data, at)
        fields[number], at = _value(data, at, byte & 15, depth)
    return fields, at + 1


def _value(data: bytes, at: int, kind: int, depth: int) -> tuple[Any, int]:
    if kind in (1, 2):  # a boolean field has its value in its type
        return kind == 1, at
    if kind == 3:
        return data[at], at + 1
    if kind in (4, 5, 6):
        return _integer(data, at)
    if kind == 7:
        return None, _within(data, at + 8)
    if kind == 8:
        length, at = _varint(data, at)
        return None, _within(data, at + length)
    if kind in (9, 10):
        return _list(data, at, depth)
    if kind == 12:
        return _struct(data, at, depth + 1)
    raise Damaged("a page header with an unknown type")


def _list(data: bytes, at: int, depth: int) -> tuple[list[Any], int]:
    count, kind = data[at] >> 4, data[at] & 15
    at += 1
    if count == 15:
        count, at = _varint(data, at)
    found = []
    for _ in range(count):
        if kind in (1, 2):  # in a list, a boolean is a byte
            value, at = data[at], at + 1
        else:
            value, at = _value(data, at, kind, depth + 1)
        found.append(value)
    return found, at


def _integer(data: bytes, at: int) -> tuple[int, int]:
    """A signed integer in zigzag code."""
    value, at = _varint(data, at)
    return (value >> 1) ^ -(value & 1), at


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        value |= (data[at] & 127) << shift
        at += 1
        if data[at - 1] < 128:
            return value, at
    raise Damaged("a page header with an endless number")


def _within(data: bytes, at: int) -> int:
    if at > len(data):
        raise IndexError
    return at
