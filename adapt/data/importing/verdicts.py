"""What is known of rows and pictures from earlier runs, by their content.

A row's key is a hash of what it says, of its pictures' bytes and of the code that checks it, so
that a row that has not changed is not checked again, wherever it stands, and one that has, is. The
store is a SQLite file in the state folder; a lost one costs time and nothing else. The rows that
were used last are kept, `MOST_ROWS` of them.
"""

import hashlib
import sqlite3
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy
import PIL

from adapt import command
from adapt.data import fingerprint, kinds, pictures, pixels, schema, texts, truth, validation
from adapt.data.readers import record
from adapt.params import InputError

MOST_ROWS = 1_000_000
MOST_PICTURES = 1_000_000
_BUSY_S = 120.0  # another process holds the file
_TABLES = ("rows", "pictures")
"""`rows`: what was found of a row. `pictures`: the same of a picture, by its bytes as they came."""


def code_version() -> bytes:
    """A hash of the code that checks: what it found is not known to another version of it."""
    digest = hashlib.sha256(f"{PIL.__version__} {numpy.__version__}".encode())
    checking = (fingerprint, kinds, pictures, pixels, record, schema, texts, truth, validation)
    for module in checking:
        assert module.__file__ is not None
        digest.update(Path(module.__file__).read_bytes())
    return digest.digest()


class Verdicts:
    """The store; one process writes, any number reads."""

    def __init__(self, path: Path, *, writable: bool) -> None:
        self._path = path
        with self._told():
            self._base = _opened(path) if writable else _read_only(path)

    def row(self, key: bytes) -> bytes | None:
        """What is known of a row."""
        return self._found("rows", key)

    def picture(self, key: bytes) -> bytes | None:
        """What is known of a picture."""
        return self._found("pictures", key)

    def add(
        self, rows: Iterable[tuple[bytes, bytes]], pictures: Iterable[tuple[bytes, bytes]]
    ) -> None:
        """Keep what was found, also if the run is interrupted later."""
        now = int(time.time())
        with self._told():
            for table, found in zip(_TABLES, (rows, pictures), strict=True):
                values = ((key, content, now) for key, content in found)
                self._base.executemany(f"INSERT OR REPLACE INTO {table} VALUES (?, ?, ?)", values)
            self._base.commit()

    def used(self, rows: Sequence[bytes], pictures: Sequence[bytes]) -> None:
        """Note what a run has used, and forget what was not used for longest."""
        now, most = int(time.time()), (MOST_ROWS, MOST_PICTURES)
        with self._told():
            for table, keys, limit in zip(_TABLES, (rows, pictures), most, strict=True):
                values = ((now, key) for key in keys)
                self._base.executemany(f"UPDATE {table} SET used = ? WHERE key = ?", values)
                self._base.execute(
                    f"DELETE FROM {table} WHERE key IN (SELECT key FROM {table} WHERE used < ?"
                    f" ORDER BY used LIMIT max(0, (SELECT count(*) FROM {table}) - ?))",
                    (now, limit),
                )
            self._base.commit()

    def close(self) -> None:
        """Let go of the file."""
        self._base.close()

    def __enter__(self) -> "Verdicts":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _found(self, table: str, key: bytes) -> bytes | None:
        with self._told():
            query = f"SELECT content FROM {table} WHERE key = ?"
            found = self._base.execute(query, (key,)).fetchone()
        return None if found is None else found[0]

    @contextmanager
    def _told(self) -> Iterator[None]:
        """SQLite's troubles in one line: a full disk, no permission, a damaged file."""
        try:
            yield
        except sqlite3.DatabaseError as error:
            is_space = "full" in str(error) or "readonly" in str(error)
            advice = command.of_words(str(error)) if is_space else f"{error}; it may be deleted"
            raise InputError(f"{self._path}: {advice}") from None
        except OSError as error:
            raise InputError(f"{self._path}: {command.advice(error)}") from None


def _opened(path: Path) -> sqlite3.Connection:
    path.parent.mkdir(parents=True, exist_ok=True)
    base = sqlite3.connect(path, timeout=_BUSY_S)
    base.execute("PRAGMA journal_mode = WAL")  # others read while one writes
    base.execute("PRAGMA synchronous = NORMAL")
    for table in _TABLES:
        columns = "key BLOB PRIMARY KEY, content BLOB NOT NULL, used INTEGER NOT NULL"
        base.execute(f"CREATE TABLE IF NOT EXISTS {table} ({columns})")
    base.commit()
    return base


def _read_only(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=_BUSY_S)
