"""The home of an SQLite store: its folder, which the addresses inside it name in whole.

MLflow writes absolute paths of artifacts into its database, because a relative one would mean the
folder of whoever opens it. A workspace that was moved or copied by hand would go on reading and
writing at its old place. So the folder is noted beside the database, and where the two differ, the
addresses are mended before anybody reads them.
"""

import sqlite3
from contextlib import closing
from pathlib import Path

ADDRESSES = {
    "experiments": ("artifact_location",),
    "runs": ("artifact_uri",),
    "logged_models": ("artifact_location",),
    "model_versions": ("source", "storage_location"),
}
ARTIFACTS = "artifacts"  # the folder beside the database
FILE = "file://"  # MLflow takes both forms of a path


def rehome(database: Path) -> bool:
    """Let the addresses in `database` name the folder that it lies in; whether any had to change.

    To be called while nobody else opens the store. Addresses elsewhere (a server's, a bucket's, a
    folder of another program) stay as they are. `sqlite3.Error` where it is no database.
    """
    if not database.exists():
        return False
    home, note = database.parent.absolute(), note_of(database)
    before = note.read_text(encoding="utf-8") if note.exists() else _former(database, home)
    changed = bool(before) and before != str(home) and _mend(database, before, str(home))
    # Noted only now: a process that is killed before mends again, which changes nothing.
    if not note.exists() or before != str(home):
        note.write_text(str(home), encoding="utf-8")
    return changed


def at_home(database: Path) -> bool:
    """Whether the store is complete and where its addresses say; the note is written last."""
    note, home = note_of(database), str(database.parent.absolute())
    return database.exists() and note.exists() and note.read_text(encoding="utf-8") == home


def note_of(database: Path) -> Path:
    """The file beside a database that says in which folder its addresses are right."""
    return database.with_name(f".{database.name}.home")


def _mend(database: Path, before: str, home: str) -> bool:
    """Replace the folder `before` at the beginning of all addresses, in one transaction."""
    changed = 0
    with closing(sqlite3.connect(database, timeout=60)) as connection, connection:
        present = _columns(connection)
        for table, column in present:
            for form in ("", FILE):
                old, new = f"{form}{before}/", f"{form}{home}/"
                statement = (
                    f"UPDATE {table} SET {column} = ? || substr({column}, ?)"
                    f" WHERE substr({column}, 1, ?) = ?"
                )
                given = (new, len(old) + 1, len(old), old)
                changed += connection.execute(statement, given).rowcount
    return bool(changed)


def _columns(connection: sqlite3.Connection) -> list[tuple[str, str]]:
    """The columns with addresses that this database has: an older MLflow knows fewer."""
    return [
        (table, column)
        for table, columns in ADDRESSES.items()
        for column in columns
        if any(row[1] == column for row in connection.execute(f"PRAGMA table_info({table})"))
    ]


def _former(database: Path, home: Path) -> str:
    """The home of a store that has no note: the folder whose runs lie here, "" where unknown."""
    with closing(sqlite3.connect(database, timeout=60)) as connection:
        if ("experiments", "artifact_location") not in _columns(connection):
            return ""
        query = (
            "SELECT e.artifact_location, r.run_uuid FROM experiments e"
            " LEFT JOIN runs r USING (experiment_id)"
        )
        rows = connection.execute(query).fetchall()
    for location, run in rows:
        path = Path(str(location).removeprefix(FILE))
        ours = path.is_absolute() and path.name == ARTIFACTS and path.parent != home
        is_here = run and (home / ARTIFACTS / run).is_dir()
        if ours and (is_here or not path.parent.exists()):
            return str(path.parent)
    return str(home)
