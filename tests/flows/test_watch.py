"""The watch: what it sees, what it tells, and that it tells nothing twice."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from adapt.data.sources import Source
from adapt.params import InputError
from flows import outside, watch
from flows.options import Retraining
from flows.serve import posting
from tests.support import ports, quick, workspace


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
def told(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """The events that were sent, and their reasons."""
    events: list[tuple[str, str]] = []

    def post(api: str, event: str, root: Path, message: str, reason: str, link: str) -> None:
        assert Retraining(reason=reason).reason, "fit for the form of a retraining"
        events.append((event, reason))

    monkeypatch.setattr(posting, "api", lambda root: "http://127.0.0.1:9/api")
    monkeypatch.setattr(posting, "post", post)
    return events


def look() -> tuple[str, str]:
    state = watch.looked(Path.cwd())
    return state.name or "", state.message or ""


NOTHING = "no answer was logged since the last look"


def test_a_change_is_told_once(root: Path, told: list[tuple[str, str]]) -> None:
    assert look() == ("Seen", f"nothing has changed; {NOTHING}")
    rows(root, "b")
    name, message = look()
    assert name == "Told" and message.endswith("told as adapt.data, which start retrain/on-change")
    # A retraining that fails, or is a dry run, is not started again for the same change.
    assert look() == ("Seen", f"data: mine has changed; {NOTHING}; this has been told")
    assert told == [("adapt.data", "mine has changed")]
    # The retraining has taken it up; the next change is told anew.
    made(root)
    assert look() == ("Seen", f"nothing has changed; {NOTHING}")
    rows(root, "c")
    assert look()[0] == "Told"
    assert told == [("adapt.data", "mine has changed")] * 2


def test_what_nobody_takes_is_told_by_the_next_look(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows(root, "b")
    name, message = look()
    assert (name, message) == (
        "InputError",
        "no Prefect server runs that could be told; `make serve` starts one",
    )
    monkeypatch.setenv("PREFECT_API_URL", f"http://127.0.0.1:{ports.free(1)[0]}/api")
    name, message = look()
    assert name == "InputError" and message.endswith("the next look tells it again")
    monkeypatch.setattr(posting, "post", lambda *_, **__: None)
    assert look()[0] == "Told"


def test_the_command_says_what_it_sees(root: Path, capfd: pytest.CaptureFixture[str]) -> None:
    rows(root, "b")
    assert watch.main([]) == 0
    assert capfd.readouterr().out == f"data: mine has changed; {NOTHING}\n"
    (root / "mine" / "rows.jsonl").unlink()
    assert watch.main([]) == 2
    line = capfd.readouterr().err
    assert line.startswith("watch: mine: ") and line.count("\n") == 1


def test_a_source_that_is_away_is_said_and_nothing_is_told(
    root: Path, told: list[tuple[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace.override(root / "params.yaml", {"data": {"source": "s3://bucket/rows"}})

    def away(*_: Any) -> None:
        raise InputError("s3://bucket/rows: cannot be reached")

    monkeypatch.setattr(Source, "open", away)
    said = "data: s3://bucket/rows: cannot be reached; results/data stays as it is"
    assert look() == ("Seen", f"nothing has changed; {NOTHING}; {said}")
    assert told == []


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
