"""The addresses inside an SQLite store follow its folder, and no other addresses do."""

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from adapt.tracking.home import rehome

TABLES = """
CREATE TABLE experiments (experiment_id INTEGER, artifact_location TEXT);
CREATE TABLE runs (run_uuid TEXT, experiment_id INTEGER, artifact_uri TEXT);
CREATE TABLE model_versions (source TEXT, storage_location TEXT);
"""


def make(home: Path, *, with_files: bool = True) -> Path:
    """A store as MLflow leaves it, with addresses of its own and of other places."""
    (home / "artifacts" / "r1").mkdir(parents=True)
    with closing(sqlite3.connect(home / "mlflow.db")) as connection, connection:
        connection.executescript(TABLES)
        places = [f"{home}/artifacts", "s3://bucket/artifacts", "mlflow-artifacts:/2", "/srv/x"]
        connection.executemany("INSERT INTO experiments VALUES (?, ?)", enumerate(places))
        runs = [("r1", 0, f"{home}/artifacts/r1"), ("r2", 0, f"file://{home}/artifacts/r2")]
        connection.executemany("INSERT INTO runs VALUES (?, ?, ?)", [*runs, ("r3", 3, "/srv/x/r3")])
        model = f"{home}/artifacts/models/m"
        connection.execute("INSERT INTO model_versions VALUES (?, ?)", (model, f"{home}-not/m"))
    if not with_files:
        shutil.rmtree(home / "artifacts")
    return home / "mlflow.db"


def addresses(database: Path) -> list[str]:
    query = (
        "SELECT artifact_location FROM experiments UNION ALL SELECT artifact_uri FROM runs"
        " UNION ALL SELECT source FROM model_versions"
        " UNION ALL SELECT storage_location FROM model_versions"
    )
    with closing(sqlite3.connect(database)) as connection:
        return [row[0] for row in connection.execute(query)]


def expected(home: Path, other: Path) -> list[str]:
    return [
        f"{home}/artifacts",
        "s3://bucket/artifacts",
        "mlflow-artifacts:/2",
        "/srv/x",
        f"{home}/artifacts/r1",
        f"file://{home}/artifacts/r2",
        "/srv/x/r3",
        f"{home}/artifacts/models/m",
        f"{other}-not/m",
    ]


@pytest.mark.parametrize("noted", [True, False], ids=["noted", "from before there were notes"])
@pytest.mark.parametrize("moving", [shutil.move, shutil.copytree], ids=["mv", "cp -r"])
@pytest.mark.parametrize("with_files", [True, False])
def test_a_moved_store_names_its_new_folder(tmp_path, moving, noted, with_files) -> None:
    before, after = tmp_path / "before", tmp_path / "a b'c"
    database = make(before, with_files=with_files)
    if noted:
        assert not rehome(database)
    moving(before, after)
    is_known = noted or with_files or not before.exists()
    assert rehome(after / "mlflow.db") is is_known
    assert addresses(after / "mlflow.db") == expected(after if is_known else before, before)
    assert not rehome(after / "mlflow.db")


def test_a_store_that_stays_keeps_the_addresses_of_others(tmp_path) -> None:
    """A folder that is away, such as a disk that is not mounted, is not taken for an old home."""
    database = make(tmp_path / "home")
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.execute("INSERT INTO experiments VALUES (9, ?)", (str(tmp_path / "artifacts"),))
    before = addresses(database)
    assert not rehome(database)
    assert addresses(database) == before


def test_what_is_no_store_is_left_alone(tmp_path) -> None:
    assert not rehome(tmp_path / "missing.db")
    (tmp_path / "empty.db").touch()
    assert not rehome(tmp_path / "empty.db")
    (tmp_path / "text.db").write_text("no database" * 99)
    with pytest.raises(sqlite3.DatabaseError):
        rehome(tmp_path / "text.db")
