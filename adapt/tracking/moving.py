"""Moving: a workspace's runs and models in another folder or on an MLflow server, by one command.

Nothing of the old store changes. A move that was cut short is repeated and goes on; one that was
whole adds what is new. To another SQLite file the database goes as it is, with all of its ids; to a
server run by run (`transfer`), because a server gives ids of its own.
"""

import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from adapt import addresses, environment
from adapt.files import whole_file
from adapt.params import InputError
from adapt.tracking.home import ARTIFACTS, note_of, rehome
from adapt.tracking.store import SQLITE, opened, uri
from adapt.tracking.transfer import Transfer

DATABASE = "mlflow.db"
EXPECTED = "expected http(s)://HOST:PORT, sqlite:////FOLDER/mlflow.db or a folder"
# What is counted to see that all has arrived: its rows, and what tells one from another.
COUNTED = {
    "runs": ("runs", "run_uuid"),
    "points of curves": ("metrics", "run_uuid"),
    "versions of models": (
        "model_versions WHERE current_stage <> 'Deleted_Internal'",
        "name || '/' || version || '/' || creation_time",
    ),
}


def move(root: Path, address: str) -> list[str]:
    """Copy all that the store of the workspace `root` has to `address`; what was done, in words.

    `address` is an MLflow server, an SQLite address or a folder. The old store is
    `MLFLOW_TRACKING_URI`, or the workspace's own where that is unset or names the new one already.
    `InputError` where one of both cannot be used, or the new one has runs or versions of its own.
    """
    target = _address(address)
    source = _source(root, target)
    if source.startswith(SQLITE) and target.startswith(SQLITE):
        done = _copy_store(_database(source), _database(target))
    else:
        if target.startswith(SQLITE):
            _database(target).parent.mkdir(parents=True, exist_ok=True)
        done = Transfer(opened(source), opened(target), _artifacts(target)).all()
    kept = f"{addresses.shown(source)} is as it was; delete it when you are content"
    shown = addresses.shown(target)
    return [*done, kept, f"from now on: export MLFLOW_TRACKING_URI={shown}"]


def _address(text: str) -> str:
    """The address of the new store; a folder means a database in it."""
    if text.startswith(("http://", "https://")):
        return text.rstrip("/")
    if text.startswith(SQLITE):
        path = Path(text.removeprefix(SQLITE))
    elif ":/" in text or not text:
        raise InputError(f"move: {addresses.shown(text)!r}: {EXPECTED}")
    else:
        path = Path(text) / DATABASE
    return f"{SQLITE}{path.absolute()}"


def _source(root: Path, target: str) -> str:
    """Where the runs are now: who has set the new address already means the workspace's own."""
    source = uri(root).rstrip("/")
    if source == target:
        source = f"{SQLITE}{environment.state_dir(root) / 'mlflow' / DATABASE}"
    if source == target:
        raise InputError(f"move: {addresses.shown(target)} is where the runs are")
    if source.startswith(SQLITE) and not _database(source).exists():
        raise InputError(f"move: there is nothing to move, no {_database(source)}")
    return source


def _database(address: str) -> Path:
    return Path(address.removeprefix(SQLITE))


def _artifacts(address: str) -> str | None:
    """Where a new experiment keeps its files; a server chooses the place itself."""
    return str(_database(address).parent / ARTIFACTS) if address.startswith(SQLITE) else None


# ---- from one SQLite file to another ------------------------------------------------------------


def _copy_store(source: Path, target: Path) -> list[str]:
    """Files, then the database: a kill at any place leaves what the next move completes."""
    _refuse_others(source, target)
    rehome(source)
    # 1. Files that have arrived whole before are not read again.
    for path, copy in _files(source.parent / ARTIFACTS, target.parent / ARTIFACTS):
        if not copy.exists() or copy.stat().st_size != path.stat().st_size:
            with whole_file(copy) as partial:
                shutil.copy2(path, partial)
    # 2. Until `rehome` has been here, the copy's addresses are right in the old folder.
    target.parent.mkdir(parents=True, exist_ok=True)
    note_of(target).write_text(str(source.parent.absolute()), encoding="utf-8")
    # 3. SQLite's own copy is one transaction, and consistent also while somebody writes.
    with closing(sqlite3.connect(source)) as old, closing(sqlite3.connect(target)) as new:
        old.backup(new)
    rehome(target)
    return [_verified(source, target)]


def _files(source: Path, target: Path) -> Iterator[tuple[Path, Path]]:
    """Every file below `source`, with its place below `target`; links are left alone."""
    for path in sorted(source.rglob("*")):
        if path.is_file() and not path.is_symlink():
            yield path, target / path.relative_to(source)


def _refuse_others(source: Path, target: Path) -> None:
    """`InputError` where `target` has runs or versions that `source` has not."""
    if not target.exists():
        return
    for things, (rows, key) in COUNTED.items():
        others = _found(target, key, rows) - _found(source, key, rows)
        if others:
            problem = f"has {len(others)} {things} of its own; name another folder"
            raise InputError(f"move: {target} {problem}")


def _found(database: Path, key: str, rows: str) -> set[str]:
    """What tells rows apart; nothing where a copy was cut short before it had tables."""
    with closing(sqlite3.connect(database)) as connection:
        if not connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'runs'").fetchone():
            return set()
        return {row[0] for row in connection.execute(f"SELECT DISTINCT {key} FROM {rows}")}


def _counts(database: Path) -> dict[str, int]:
    with closing(sqlite3.connect(database)) as connection:
        return {
            things: connection.execute(f"SELECT count(*) FROM {rows}").fetchone()[0]
            for things, (rows, _) in COUNTED.items()
        }


def _verified(source: Path, target: Path) -> str:
    """What has arrived, in words; `InputError` where it is less than there was."""
    before, after = _counts(source), _counts(target)
    files = list(_files(source.parent / ARTIFACTS, target.parent / ARTIFACTS))
    missing = [copy for _, copy in files if not copy.is_file()]
    if missing or any(after[name] < number for name, number in before.items()):
        raise InputError(f"move: {target} lacks what came in meanwhile; move again")
    parts = [f"{number} {things}" for things, number in after.items()]
    return f"{', '.join(parts)} and {len(files)} files are in {target.parent}"
