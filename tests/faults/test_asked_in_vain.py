"""A server that a retraining asks before it begins does not answer."""

from pathlib import Path

import pytest
from prefect.settings import PREFECT_API_URL, temporary_settings

from flows import outlook, plan, retrain
from flows.options import Retraining
from tests.support import quick, workspace
from tests.support.faults import fault

AWAY = "http://127.0.0.1:9"  # nobody listens there

pytestmark = pytest.mark.filterwarnings(
    "ignore::DeprecationWarning:dvc", "ignore:_NoneStep.value:DeprecationWarning"
)


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for key, value in quick.environment(tmp_path).items():
        monkeypatch.setenv(key, value)
    for key in ("MLFLOW_TRACKING_URI", "PREFECT_API_URL"):
        monkeypatch.delenv(key, raising=False)
    monkeypatch.chdir(tmp_path)
    return quick.make(tmp_path)


@fault(
    "the registry is away when a retraining is planned from models:/NAME@champion",
    keeps="results/base stays as it is, and all that is not due",
    says="base: MLflow store http://... cannot be used: ...; results/base stays as it is",
    then="looks again",
)
def test_the_registry_is_away_at_the_plan(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", AWAY)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    workspace.override(root / "params.yaml", {"base": {"source": "models:/adapt@champion"}})
    todo = plan.make(root, force=False)
    assert todo.forced == ()
    (note,) = todo.notes
    assert note.startswith(f"base: MLflow store {AWAY} cannot be used: ") and "\n" not in note
    assert note.endswith("; results/base stays as it is")
    assert note + "." in outlook.sentences(root, Retraining())


@fault(
    "Prefect's server is away when a retraining starts",
    keeps="everything: nothing has been started",
    says="PREFECT_API_URL: no Prefect server answers at http://... (...); start it, or unset the "
    "variable to have a temporary one",
    then="works as soon as the server answers",
)
def test_prefect_is_away_at_the_start(
    root: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PREFECT_API_URL", f"{AWAY}/api")
    with temporary_settings({PREFECT_API_URL: f"{AWAY}/api"}):
        assert retrain.main([]) == 2
    line = capfd.readouterr().err
    assert line.startswith("retrain: PREFECT_API_URL: no Prefect server answers at ")
    assert line.count("\n") == 1
    assert not workspace.processes(root)
