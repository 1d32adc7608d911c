"""Where answers are logged: parquet by hour, on a disk or on S3, written by several at once.

    signals/2026-11-27/05-<writer>-<n>.parquet    a row per answer: `SIGNALS`
    texts/2026-11-27/05-<writer>-<n>.parquet      only if asked for: `TEXTS`

Days and hours are UTC. A writer puts what has come together every few seconds into a file of its
own, and joins such files when they are many or their hour is over. A file is there as a whole or
not at all; an answer may for a moment be in two files, and is read once. Nothing that is read here
is believed: others may be able to write to a storage, so a file that is none of these is left out
and told.
"""

import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from adapt.files import storage_errors, whole_file
from adapt.names import one_line
from adapt.params import InputError
from adapt.watching.signals import NAMES

Kind = Literal["signals", "texts"]
TOKEN_COLUMNS = (
    *("risk", "mass", "focus", "amc", "responsiveness", "drift", "logprob", "steered"),
)
"""Of the tokens of an answer, for a detector to be fitted again; `end` beside them, in characters.
In the log their names begin with `token_`."""
_ABOUT = {"id": pa.string(), "time": pa.float64(), "version": pa.string(), "policy": pa.string()}
SIGNALS = pa.schema(
    {
        **_ABOUT,
        "finish": pa.string(),
        "detector": pa.string(),
        "picture": pa.string(),  # a name that tells equal pictures of one server
        "modes": pa.list_(pa.string()),
        "said": pa.int64(),  # characters of the answer
        **dict.fromkeys(NAMES, pa.float64()),
        "token_end": pa.list_(pa.int32()),
        **dict.fromkeys((f"token_{name}" for name in TOKEN_COLUMNS), pa.list_(pa.float32())),
    }
)
TEXTS = pa.schema(
    {
        **{name: _ABOUT[name] for name in ("id", "time", "version")},
        "question": pa.string(),
        "answer": pa.string(),
        "pictures": pa.list_(pa.binary()),  # as PNG
    }
)
SCHEMAS: Mapping[Kind, pa.Schema] = {"signals": SIGNALS, "texts": TEXTS}
HOUR_S, DAY_S = 3600, 86400
LARGEST = 1 << 30  # bytes of one file, unpacked
MOST_ROWS = 2_000_000  # that are read at once
TRIES = 3  # files are joined, and go away, while they are read
_FILE = re.compile(r"(\d{4}-\d\d-\d\d)/(\d\d)-[0-9a-f]{8}-\d{5,}\.parquet$")


@dataclass(frozen=True)
class Read:
    """Rows by time, and what had to be left out, a sentence each."""

    rows: pd.DataFrame
    left_out: tuple[str, ...] = ()


class Log:
    """The log at `place`: a folder, or storage that fsspec opens. `InputError` where it cannot."""

    def __init__(self, place: str) -> None:
        from fsspec.core import url_to_fs
        from fsspec.implementations.local import LocalFileSystem

        self.place = place
        try:
            self._fs, self._root = url_to_fs(place.rstrip("/"))
        except storage_errors() as error:
            raise InputError(f"watch.log: {one_line(place)}: {one_line(str(error))}") from None
        self._is_local = isinstance(self._fs, LocalFileSystem)

    # ---- writing -------------------------------------------------------------------------------

    def write(
        self, kind: Kind, rows: Sequence[Mapping[str, Any]], hour: int, writer: str, number: int
    ) -> str:
        """Put rows of an hour (since 1970) into a file of their own; returns its path."""
        table = pa.Table.from_pylist([*rows], schema=SCHEMAS[kind])
        path = self._path(kind, hour, writer, f"{number:05d}")
        self._put(path, lambda file: pq.write_table(table, file, compression="zstd"))
        return path

    def join(self, kind: Kind, paths: Sequence[str], hour: int, writer: str, number: int) -> None:
        """Make one file of a writer's files of an hour, a part at a time, and take these away."""
        path = self._path(kind, hour, writer, f"{number:05d}")

        def copy(file: Any) -> None:
            with pq.ParquetWriter(file, SCHEMAS[kind], compression="zstd") as whole:
                for part in paths:
                    with self._fs.open(part, "rb") as source:
                        whole.write_table(pq.read_table(source))

        self._put(path, copy)
        for part in paths:
            self._fs.rm_file(part)

    def _path(self, kind: Kind, hour: int, writer: str, name: str) -> str:
        at = datetime.fromtimestamp(hour * HOUR_S, UTC)
        return f"{self._root}/{kind}/{at:%Y-%m-%d}/{at:%H}-{writer}-{name}.parquet"

    def _put(self, path: str, write: Callable[[Any], None]) -> None:
        """A file as a whole: object stores put it so, on a disk a rename does."""
        if not self._is_local:
            with self._fs.open(path, "wb") as file:
                write(file)
            return
        # Nobody else's business, whoever else uses this machine.
        Path(self._root).mkdir(mode=0o700, parents=True, exist_ok=True)
        with whole_file(Path(path)) as partial, partial.open("wb") as file:
            write(file)

    # ---- reading -------------------------------------------------------------------------------

    def read(self, kind: Kind, since: float = 0.0, *, tokens: bool = False) -> Read:
        """The rows of answers given after `since` (s since 1970), each once, the first one first.

        `tokens`: with the lists of their tokens. `InputError` where the storage does not answer.
        """
        schema = SCHEMAS[kind]
        columns = [name for name in schema.names if tokens or not name.startswith("token_")]
        for attempt in range(TRIES):
            try:
                return self._read(kind, columns, since)
            except FileNotFoundError:
                if attempt == TRIES - 1:
                    raise
            except storage_errors() as error:
                raise InputError(f"{one_line(self.place)}: {_reason(error)}") from None
        raise AssertionError("either returned or raised")

    def _read(self, kind: Kind, columns: Sequence[str], since: float) -> Read:
        parts, left_out, count = [pa.schema(SCHEMAS[kind]).empty_table()], list[str](), 0
        for path, hour in sorted(self._files(kind)):
            if (hour + 1) * HOUR_S <= since:
                continue
            try:
                with self._fs.open(path, "rb") as file:
                    parts.append(_table(file, SCHEMAS[kind]))
            except (pa.ArrowException, InputError, ValueError) as error:
                left_out.append(f"{one_line(path)}: left out: {_reason(error)}")
                continue
            count += len(parts[-1])
            if count > MOST_ROWS:
                raise InputError(f"{one_line(self.place)}: more than {MOST_ROWS:,} answers to read")
        table = pa.concat_tables([part.select(columns) for part in parts])
        rows = table.to_pandas()
        rows = rows[rows.time > since].drop_duplicates(["id", "time"])
        return Read(rows.sort_values(["time", "id"], ignore_index=True), tuple(left_out))

    def _files(self, kind: Kind) -> Iterator[tuple[str, int]]:
        """Every file of the log, and its hour; others are none of ours."""
        self._fs.invalidate_cache()
        for path in self._fs.glob(f"{self._root}/{kind}/*/*.parquet"):
            if (hour := _hour_of(str(path))) is not None:
                yield str(path), hour

    # ---- forgetting ----------------------------------------------------------------------------

    def expire(self, kind: Kind, days: int, now: float | None = None) -> int:
        """Delete the files of hours that ended more than `days` ago; returns how many."""
        limit = (time.time() if now is None else now) - days * DAY_S
        old = [path for path, hour in self._files(kind) if (hour + 1) * HOUR_S <= limit]
        for path in old:
            with suppress(FileNotFoundError):  # another server has been faster
                self._fs.rm_file(path)
        if self._is_local:
            for folder in {Path(path).parent for path in old}:
                with suppress(OSError):  # not empty yet
                    folder.rmdir()
        return len(old)


def opened(place: str) -> pd.DataFrame:
    """All answers of a log with their tokens, or of one of its files; `InputError` for neither."""
    if "://" in place or not Path(place).is_file():
        rows = Log(place).read("signals", tokens=True).rows
        if rows.empty:
            raise InputError(f"{one_line(place)}: no answer is logged there")
        return rows
    try:
        with Path(place).open("rb") as file:
            return _table(file, SIGNALS).to_pandas()
    except (pa.ArrowException, InputError, OSError, ValueError) as error:
        reason = f"is no file of a log ({_reason(error)})"
        raise InputError(f"{one_line(place)}: {reason}") from None


def _hour_of(path: str) -> int | None:
    """The hour that a file is of; None where its name is none of ours."""
    found = _FILE.search(path)
    try:
        day = datetime.strptime(found[1], "%Y-%m-%d").replace(tzinfo=UTC) if found else None
    except ValueError:  # the 31st of February
        return None
    if found is None or day is None:
        return None
    return int((day + timedelta(hours=int(found[2]))).timestamp()) // HOUR_S


def _table(file: Any, schema: pa.Schema) -> pa.Table:
    """The columns of `schema` that a file has, missing ones empty; `InputError` for no such file.

    A file of an earlier version lacks columns; one of a later version has others.
    """
    stored = pq.ParquetFile(file)
    unpacked = sum(
        stored.metadata.row_group(number).total_byte_size
        for number in range(stored.metadata.num_row_groups)
    )
    if unpacked > LARGEST:
        raise InputError(f"unpacks to more than {LARGEST >> 20} MiB")
    wanted = [name for name in schema.names if name in stored.schema_arrow.names]
    if "id" not in wanted or "time" not in wanted:
        raise InputError("has no columns id and time")
    table = stored.read(columns=wanted)
    table.validate(full=True)
    columns = [
        table[name].cast(field.type) if name in wanted else pa.nulls(len(table), field.type)
        for name, field in zip(schema.names, schema, strict=True)
    ]
    return pa.table(columns, schema=schema)


def _reason(error: Exception) -> str:
    said = str(error).strip().partition("\n")[0] or type(error).__name__
    return one_line(said, 200)
