"""Prefect and MLflow on Postgres, started by the commands of infra/compose.yaml: a workspace moves
there and goes on, and its backup comes back.
"""

import os
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path

import pytest
from mlflow import MlflowClient

from tests.support import limits, ports, quick, workspace
from tests.support.compose import Here
from tests.support.postgres import PASSWORD, Postgres, binaries, postgres

SCRIPTS = workspace.ROOT / "infra" / "compose"
PASSWORDS = {
    "ADAPT_POSTGRES_PASSWORD": PASSWORD,
    "ADAPT_PREFECT_PASSWORD": "p'r/e:f@e%c t$",
    "ADAPT_MLFLOW_PASSWORD": 'm"l\\f&l?o#w',
    "ADAPT_OBJECTS_KEY": "unused",
    "ADAPT_OBJECTS_SECRET": "unused",
}


@pytest.fixture(scope="module")
def database() -> Iterator[Postgres]:
    """Postgres with a user and a database for each server, as its image makes them."""
    with postgres() as started:
        names = ("PREFECT_PASSWORD", "MLFLOW_PASSWORD")
        passwords = {name: PASSWORDS[f"ADAPT_{name}"] for name in names}
        started.run(["sh", str(SCRIPTS / "databases.sh")], passwords)
        yield started


@pytest.fixture(scope="module")
def pair(database: Postgres, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The environment in which a command talks to both servers."""
    pytest.importorskip("psycopg2", reason="MLflow on Postgres needs the extra `postgres`")
    folder = tmp_path_factory.mktemp("servers")
    prefect, mlflow = ports.free()[0], ports.free()[0]
    place = {"@postgres:5432": f"@127.0.0.1:{database.port}", "0.0.0.0": "127.0.0.1"}
    bucket = {"s3://adapt/mlflow": str(folder / "artifacts")}
    host = {"PREFECT_SERVER_DATABASE_HOST": "127.0.0.1"}
    port = {"PREFECT_SERVER_DATABASE_PORT": str(database.port)}
    with ExitStack() as stack:
        for here in (
            Here("prefect", PASSWORDS, place | {"4200": str(prefect)}, host | port),
            Here("mlflow", PASSWORDS, place | bucket | {"5000": str(mlflow)}),
        ):
            stack.enter_context(here.running(folder))
        api, server = f"http://127.0.0.1:{prefect}/api", f"http://127.0.0.1:{mlflow}"
        yield {"PREFECT_API_URL": api, "MLFLOW_TRACKING_URI": server}


def command(root: Path, *words: str, env: Mapping[str, str]) -> str:
    """Output of `python -m ...` in the quick workspace `root`; it must succeed."""
    return workspace.command(root, *words, env={"PYTHONPATH": str(workspace.ROOT), **env})


@pytest.mark.timeout(limits.WHOLE_TEST_S)
def test_a_workspace_moves_to_the_servers_and_goes_on(
    pair: dict[str, str], database: Postgres, tmp_path: Path
) -> None:
    root, server = quick.make(tmp_path), pair["MLFLOW_TRACKING_URI"]
    # 1. A retraining with the workspace's own store, which Prefect's server keeps in Postgres.
    prefect = {"PREFECT_API_URL": pair["PREFECT_API_URL"]}
    assert "promoted to champion" in command(root, "flows.retrain", env=prefect)
    states = "SELECT state_name FROM flow_run"
    assert database.ask("prefect", states).split() == ["Promoted"]
    # 2. The workspace's runs and models move, with nothing lost and nothing twice.
    command(root, "adapt.tracking", "flush", env={})
    own = MlflowClient(f"sqlite:///{root}/.state/mlflow/mlflow.db")
    runs, there = own.search_runs(["1"]), MlflowClient(server)
    for _ in range(2):
        told = command(root, "adapt.tracking", "move", server, env={})
        assert f"{len(runs)} runs and" in told and f"MLFLOW_TRACKING_URI={server}" in told
    assert database.ask("mlflow", "SELECT count(*) FROM runs") == str(len(runs))
    champion = there.get_model_version_by_alias("adapt", "champion")
    assert int(champion.version) == 1
    assert there.get_run(champion.run_id).info.status == "FINISHED"
    # 3. There the next retraining finds what the last one has decided, and a better one is next.
    command(root, "flows.retrain", env=pair)
    assert sorted(database.ask("prefect", states).split()) == ["Promoted", "Unchanged"]
    quick.going_on(root, "1")
    quick.tuned(root, 0.95)
    assert "version 2 was promoted" in command(root, "flows.retrain", env=pair)
    assert database.ask("prefect", states).split().count("Promoted") == 2
    # 4. And back from the servers into a folder.
    command(root, "adapt.tracking", "flush", env=pair)
    command(root, "adapt.tracking", "move", str(tmp_path / "back"), env=pair)
    back = MlflowClient(f"sqlite:///{tmp_path}/back/mlflow.db")
    assert int(back.get_model_version_by_alias("adapt", "champion").version) == 2
    assert len(back.search_runs(["1"])) == len(there.search_runs(["1"]))


def test_a_backup_comes_back(database: Postgres, tmp_path: Path) -> None:
    env = {"BACKUPS": str(tmp_path), "KEEP": "1"}

    def backup(*words: str) -> str:
        return database.run(["sh", str(SCRIPTS / "backup.sh"), *words], env)

    # The server's own user, by TCP and with its password.
    server = {"PGUSER": "mlflow", "PGPASSWORD": PASSWORDS["ADAPT_MLFLOW_PASSWORD"]}
    database.ask("mlflow", "CREATE TABLE kept (word text); INSERT INTO kept VALUES ('a')", server)
    backup("now")
    (made,) = tmp_path.glob("mlflow-*.dump")
    backup("fresh", "60")
    database.ask("mlflow", "UPDATE kept SET word = 'lost'; CREATE TABLE later ()", server)
    assert f"mlflow is as it was in {made.name}" in backup("restore", made.name)
    # Owner and rights are what they were: the server goes on with it.
    update = "UPDATE kept SET word = word || 'b' RETURNING word"
    assert database.ask("mlflow", update, server).split()[0] == "ab"
    # The last KEEP of each database stay.
    made.rename(tmp_path / "mlflow-20260101T000000Z.dump")
    backup("now")
    assert len(list(tmp_path.glob("mlflow-*"))) == len(list(tmp_path.glob("prefect-*"))) == 1
    assert not list(tmp_path.glob("*.partial"))
    # A damaged one changes nothing.
    (damaged,) = tmp_path.glob("mlflow-*.dump")
    damaged.write_bytes(damaged.read_bytes()[:-40])
    with pytest.raises(AssertionError):
        backup("restore", damaged.name)
    assert database.ask("mlflow", "SELECT word FROM kept", server) == "ab"


def test_one_server_does_not_read_the_other(database: Postgres) -> None:
    prefect = {"PGUSER": "prefect", "PGPASSWORD": PASSWORDS["ADAPT_PREFECT_PASSWORD"]}
    assert database.ask("prefect", "SELECT 1", prefect) == "1"
    with pytest.raises(AssertionError, match="permission denied for database"):
        database.ask("mlflow", "SELECT 1", prefect)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["restore", "../mlflow-1.dump"], "expected a name from the list"),
        (["restore", "mlflow-1.dump"], "no "),
        (["fresh", "60"], ""),
        ([], "expected now, every SECONDS"),
    ],
)
def test_a_backup_that_is_not_there(tmp_path: Path, words: list[str], says: str) -> None:
    env = {"BACKUPS": str(tmp_path), "PATH": os.environ["PATH"]}
    script = ["sh", str(SCRIPTS / "backup.sh"), *words]
    done = subprocess.run(script, env=env, capture_output=True, text=True)
    assert done.returncode in (1, 2) and says in done.stderr
    assert len(done.stderr.splitlines()) <= 1


def test_a_failed_backup_is_none(tmp_path: Path) -> None:
    """A database that is away leaves no file that looks like a backup."""
    env = {"BACKUPS": str(tmp_path), "PGHOST": "127.0.0.1", "PGPORT": str(ports.free()[0])}
    env["PATH"] = f"{binaries()}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(["sh", str(SCRIPTS / "backup.sh"), "now"], env=env, capture_output=True)
    assert done.returncode
    assert not list(tmp_path.glob("*.dump"))
