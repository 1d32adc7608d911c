"""The store: made once whatever the processes, and errors that name it."""

import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from adapt import addresses, params
from adapt.params import InputError
from adapt.tracking.store import Store, TrackingConfig, client, uri
from tests.support import limits, tracked

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Store, str]:
    store = tracked.workspace(tmp_path, monkeypatch)
    return store, store.client.create_run(store.experiment_id).info.run_id


@pytest.mark.parametrize(
    "given, expected",
    [
        ("", "sqlite:///{root}/.state/mlflow/mlflow.db"),
        ("sqlite:///runs/a.db", "sqlite:///{root}/runs/a.db"),
        ("sqlite:////elsewhere/a.db", "sqlite:////elsewhere/a.db"),
        ("http://host:5000", "http://host:5000"),
    ],
)
def test_address_is_absolute(
    given: str, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ADAPT_STATE", raising=False)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", given)
    assert uri(tmp_path) == expected.format(root=tmp_path)


def test_processes_that_make_the_store_at_once_all_succeed(tmp_path: Path) -> None:
    code = (
        "from pathlib import Path; from adapt.tracking.store import Store, TrackingConfig;"
        "config = TrackingConfig(experiment='e', model='m');"
        f"print(Store(Path(r'{tmp_path}'), config).experiment_id)"
    )
    env = {
        key: value
        for key, value in os.environ.items()
        if key not in ("MLFLOW_TRACKING_URI", "ADAPT_STATE")
    }
    env["PYTHONPATH"] = str(ROOT)
    command = [sys.executable, "-c", code]
    started = [
        subprocess.Popen(command, cwd=tmp_path, env=env, stdout=-1, stderr=-1, text=True)
        for _ in range(2)
    ]
    ended = [process.communicate(timeout=limits.COMMAND_S) for process in started]
    assert [process.returncode for process in started] == [0, 0], ended
    assert len({out for out, _ in ended}) == 1  # one experiment
    assert {path.name for path in tmp_path.iterdir()} == {
        ".state"
    }  # nothing beside it, such as ./mlruns
    with sqlite3.connect(tmp_path / ".state" / "mlflow" / "mlflow.db") as database:
        assert database.execute("PRAGMA journal_mode").fetchone() == ("wal",)


@pytest.mark.parametrize(
    "address",
    [
        "http://me:hunter2@127.0.0.1:9",
        "file:///tmp/mlruns",
        "postgresql+nothing://me:hunter2@host/db",
    ],
)
def test_a_store_that_cannot_be_used_is_named(
    address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(InputError) as caught:
        client(tmp_path)
    assert addresses.shown(address) in str(caught.value)
    assert "hunter2" not in str(caught.value)


def test_a_store_is_opened_at_the_first_question_and_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///runs.db")
    store = Store(tmp_path, tracked.CONFIG)
    assert list(tmp_path.iterdir()) == []
    assert store.client is store.client and store.experiment_id == store.experiment_id
    assert (tmp_path / "runs.db").exists()


def test_deleted_experiment_is_a_users_mistake(run: tuple[Store, str]) -> None:
    store, _ = run
    store.client.delete_experiment(store.experiment_id)
    with pytest.raises(InputError, match=r"tracking.experiment: adapt was deleted; .* restore"):
        _ = Store(store.root, store.config).experiment_id


@pytest.mark.parametrize("model", ["", "a/b", "a@b", "a'b", "a:b"])
def test_model_names_that_a_registry_refuses(model: str) -> None:
    content = {"tracking": {"experiment": "adapt", "model": model}}
    with pytest.raises(InputError, match="model: must be letters, digits"):
        params.load(content, "tracking", TrackingConfig)
