"""Tables of Arrow as records, whichever file they come from."""

from collections.abc import Iterator, Mapping
from typing import Any

import pyarrow as pa

from adapt.data.readers.record import MAX_COLUMNS, MAX_DEPTH, Document, Record
from adapt.params import InputError, plain, shown

_LONGEST = 120  # characters of what Arrow says
# What Arrow raises for values that Python cannot hold: text that is no UTF-8, dates out of range.
_UNREADABLE = (pa.ArrowException, ValueError, OverflowError, ArithmeticError)


def records(file: str, row: int, batch: pa.RecordBatch) -> Iterator[Record]:
    """The rows of a batch, the first of which is number `row`."""
    try:
        batch.validate(full=True)
        rows: list[Mapping[str, Any]] = batch.to_pylist()
    except _UNREADABLE:  # one cell of one row; the others are fine
        for number in range(batch.num_rows):
            yield _record(file, row + number, batch.slice(number, 1))
        return
    for number, values in enumerate(rows, row):
        yield Record(file=file, row=number, values=values)


def _record(file: str, row: int, batch: pa.RecordBatch) -> Record:
    values = {}
    for name, column in zip(batch.schema.names, batch.columns, strict=True):
        try:
            column.validate(full=True)
            values[name] = column[0].as_py()
        except _UNREADABLE as error:
            problem = f"column {shown(name)} cannot be read ({reason(error)})"
            return Record(file=file, row=row, problem=problem)
    return Record(file=file, row=row, values=values)


def require_readable(document: Document, schema: pa.Schema) -> None:
    """`InputError` for a table of too many columns, two of one name, or types too deep."""
    where, names = document.where(), schema.names
    if len(names) > MAX_COLUMNS:
        raise InputError(f"{where}: has {len(names)} columns, more than {MAX_COLUMNS}")
    if len(set(names)) < len(names):
        double = next(name for name in names if names.count(name) > 1)
        raise InputError(f"{where}: two columns are named {shown(double)}")
    for field in schema:
        if _depth(field.type) > MAX_DEPTH:
            problem = f"column {shown(field.name)} is nested more than {MAX_DEPTH} levels deep"
            raise InputError(f"{where}: {problem}")


def is_damage(error: Exception) -> bool:
    """Whether Arrow has found a file damaged, in contrast to a disk or network that fails."""
    if isinstance(error, pa.ArrowException):
        return True
    return type(error) is OSError and error.errno is None


def reason(error: Exception) -> str:
    """The first line of what Arrow says, fit for a line of ours."""
    first = next(iter(str(error).splitlines()), "")
    return plain(first[:_LONGEST]) or type(error).__name__


def _depth(kind: pa.DataType) -> int:
    level, depth = [kind], 0
    while level and depth <= MAX_DEPTH:
        inner = [one.field(i).type for one in level for i in range(one.num_fields)]
        level, depth = inner, depth + 1
    return depth
