"""What the pairs stage has found, kept by content: a night with new rows works out the new ones.

A row's outcome is kept under a digest of everything that it depends on: the model's weights, its
processor and chat template, the settings, and the row itself with its pictures. It is kept as soon
as a batch is done, so that a stage that was cut off goes on where it stopped.

A table of SQLite, in the state folder: a batch is in it or not. It is bounded, those go first that
no run has asked for the longest, and it may be deleted at any time. The last digits of an anchor
depend on the batch that it was worked out in, as they do between machines.
"""

import contextlib
import dataclasses
import hashlib
import json
import sqlite3
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from adapt.attention.support import SIDE
from adapt.pairs.annotate import Annotation, Answers, Found, LeftOut, Outcome
from adapt.pairs.table import PairView
from adapt.params import InputError

VERSION = 1  # of what is worked out, and how: another number makes everything new
MOST_BYTES = 4 << 30
_TABLE = (
    "CREATE TABLE IF NOT EXISTS found (key BLOB PRIMARY KEY, used REAL, size INTEGER,"
    " facts TEXT, anchor BLOB, support BLOB)"
)
# The newest of all rows, as many as fit; a run's own are the newest.
_TRIM = (
    "DELETE FROM found WHERE used < ? AND key IN (SELECT key FROM (SELECT key, SUM(size) OVER"
    " (ORDER BY used DESC, key) AS total FROM found) WHERE total > ?)"
)


def row_key(base: bytes, row: Any, names: Sequence[str]) -> bytes:
    """The digest of a row's fields and pictures, and of `base`, which says all the rest."""
    digest = hashlib.sha256(base)
    digest.update(repr([getattr(row, name) for name in names]).encode())
    for content in row.images:
        digest.update(hashlib.sha256(content).digest())
    return digest.digest()


class Kept:
    """The outcomes of rows by their keys; made by `kept`."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection, self.begun = connection, time.time()

    def known(self, keys: Iterable[bytes]) -> set[bytes]:
        """Those of the keys that have an outcome; they are in use now."""
        found, asked = set(), [*dict.fromkeys(keys)]
        with self._connection as connection:
            for key in asked:
                where = (time.time(), key)
                cursor = connection.execute("UPDATE found SET used = ? WHERE key = ?", where)
                if cursor.rowcount:
                    found.add(key)
        return found

    def get(self, key: bytes) -> Outcome:
        """The outcome of a row that is known or was put."""
        query = "SELECT facts, anchor, support FROM found WHERE key = ?"
        facts, anchor, support = self._connection.execute(query, (key,)).fetchone()
        return _unpacked(json.loads(facts), anchor, support)

    def put(self, outcomes: Mapping[bytes, Outcome]) -> None:
        """Keep the outcomes of a batch, all of them or none."""
        rows = []
        for key, found in outcomes.items():
            facts, anchor, support = _packed(found)
            size = len(key) + len(facts) + len(anchor) + len(support)
            rows.append((key, time.time(), size, facts, anchor, support))
        with self._connection as connection:
            command = "INSERT OR REPLACE INTO found VALUES (?, ?, ?, ?, ?, ?)"
            connection.executemany(command, rows)

    def trim(self, most: int = MOST_BYTES) -> None:
        """Let the oldest outcomes go that are too many; this run's own stay."""
        with self._connection as connection:
            connection.execute(_TRIM, (self.begun, most))


@contextlib.contextmanager
def kept(folder: Path) -> Iterator[Kept]:
    """The outcomes in a folder; what is no database is begun anew. InputError for other trouble."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "found.sqlite"
    try:
        with contextlib.closing(_opened(path)) as connection:
            yield Kept(connection)
    except sqlite3.Error as error:  # damaged further in, a full disk, a lock that stays
        raise InputError(f"{path}: {error}; the file may be deleted") from None


def _opened(path: Path) -> sqlite3.Connection:
    try:
        return _connected(path)
    except sqlite3.OperationalError:
        raise
    except sqlite3.DatabaseError:  # no database at all
        path.unlink()
        return _connected(path)


def _connected(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, timeout=120)
    try:
        connection.execute(_TABLE)
    except sqlite3.Error:
        connection.close()
        raise
    return connection


def _packed(found: Outcome) -> tuple[str, bytes, bytes]:
    if isinstance(found, LeftOut):
        return json.dumps({"left_out": found.reason}), b"", b""
    where = found.annotation
    facts: dict[str, Any] = {"views": [dataclasses.asdict(view) for view in where.views]}
    if found.answers is not None:
        facts["answers"] = dataclasses.asdict(found.answers)
    anchor = np.array(where.anchor, np.float32).tobytes()
    return json.dumps(facts), anchor, b"".join(where.support)


def _unpacked(facts: dict[str, Any], anchor: bytes, support: bytes) -> Outcome:
    if "left_out" in facts:
        return LeftOut(facts["left_out"])
    maps = [support[at : at + SIDE**2] for at in range(0, len(support), SIDE**2)]
    where = Annotation(
        anchor=tuple(np.frombuffer(anchor, np.float32).tolist()),
        views=tuple(PairView(**view) for view in facts["views"]),
        support=tuple(maps),
    )
    answers = Answers(**facts["answers"]) if "answers" in facts else None
    return Found(annotation=where, answers=answers)
