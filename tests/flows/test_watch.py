"""The watch: what it sees, what it starts, and that it starts nothing twice."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from adapt.data.sources import Source
from adapt.params import InputError
from flows import outside, watch
from flows.options import Retraining
from tests.support import quick, workspace


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A workspace whose data came from the folder `mine`."""
    for key in ("MLFLOW_TRACKING_URI", "PREFECT_API_URL", "ADAPT_STATE"):
        monkeypatch.delenv(key, raising=False)
    quick.make(tmp_path)
    (tmp_path / "mine").mkdir()
    rows(tmp_path, "a")
    workspace.override(tmp_path / "params.yaml", {"data": {"source": "mine"}})
    made(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def rows(root: Path, answer: str) -> None:
    row = {"question": "?", "chosen": answer, "rejected": "no"}
    (root / "mine" / "rows.jsonl").write_text(json.dumps(row) + "\n")


def made(root: Path) -> None:
    """Stage data has run on what is there now."""
    folder = root / "results" / "data"
    folder.mkdir(parents=True, exist_ok=True)
    noted = {"source": "mine", "revision": Source.open("mine", root).fingerprint()}
    (folder / "source.json").write_text(json.dumps(noted))


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The reasons of the retrainings that were started."""
    reasons: list[str] = []

    def run_deployment(name: str, parameters: dict[str, Any], timeout: float) -> None:
        asked = Retraining(**parameters["options"])
        assert asked.wait_minutes, "a retraining that is under way is waited for"
        reasons.append(asked.reason)

    monkeypatch.setattr(watch, "run_deployment", run_deployment)
    return reasons


def look(dry_run: bool = False) -> tuple[str, str]:
    state = watch.looked(Path.cwd(), dry_run)
    return state.name or "", state.message or ""


def test_a_change_starts_one_retraining(root: Path, started: list[str]) -> None:
    assert look() == ("Seen", "nothing has changed")
    rows(root, "b")
    assert look(dry_run=True) == ("Seen", "data: mine has changed")
    assert started == []
    assert look() == ("Started", "data: mine has changed; retrain/nightly is started")
    # One that fails, or has not ended yet, is not started again for the same data.
    assert look()[0] == "Seen"
    assert started == ["mine has changed"]
    # The retraining has taken it up; the next change starts the next one.
    made(root)
    assert look() == ("Seen", "nothing has changed")
    rows(root, "c")
    assert look()[0] == "Started"
    assert started == ["mine has changed"] * 2


def test_the_command_says_what_it_sees(root: Path, capfd: pytest.CaptureFixture[str]) -> None:
    rows(root, "b")
    assert watch.main([]) == 0
    assert capfd.readouterr().out == "data: mine has changed\n"
    (root / "mine" / "rows.jsonl").unlink()
    assert watch.main([]) == 2
    line = capfd.readouterr().err
    assert line.startswith("watch: mine: ") and line.count("\n") == 1


def test_a_source_that_is_away_is_said_and_starts_nothing(
    root: Path, started: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace.override(root / "params.yaml", {"data": {"source": "s3://bucket/rows"}})

    def away(*_: Any) -> None:
        raise InputError("s3://bucket/rows: cannot be reached")

    monkeypatch.setattr(Source, "open", away)
    said = "data: s3://bucket/rows: cannot be reached; results/data stays as it is"
    assert look() == ("Seen", f"nothing has changed; {said}")
    assert started == []


def test_a_model_of_the_hub_has_a_commit(
    root: Path, monkeypatch: pytest.MonkeyPatch, note: Callable[..., None]
) -> None:
    note(source="owner/model", version="", commit="a" * 40)
    commits = iter(["a" * 40, "b" * 40])

    class Hub:
        def model_info(self, source: str, timeout: float) -> Any:
            assert source == "owner/model"
            return type("Info", (), {"sha": next(commits)})

    monkeypatch.setattr("huggingface_hub.HfApi", Hub)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    assert outside.hub_moved(root, "owner/model") == ""
    moved = "owner/model is at commit bbbbbbbb, was aaaaaaaa"
    assert outside.hub_moved(root, "owner/model") == moved
    assert outside.hub_moved(root, "another/model") == ""


@pytest.fixture
def note(root: Path) -> Callable[..., None]:
    """Write what stage base has noted."""

    def write(**noted: str) -> None:
        folder = root / "results" / "base"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "source.json").write_text(json.dumps(noted))

    return write
