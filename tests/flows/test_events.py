"""What a retraining tells: which endings are events and with which words, and quiet nights."""

from datetime import date
from pathlib import Path

import pytest
from prefect.settings import PREFECT_API_URL, temporary_settings

from flows import events


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ADAPT_STATE", str(tmp_path / ".state"))
    return tmp_path


def nights(root: Path, *endings: tuple[str, int]) -> list[int]:
    return [events.quiet_nights(root, ending, date(2026, 11, day)) for ending, day in endings]


def test_quiet_nights_are_counted_each_day_once(root: Path) -> None:
    quiet = [("Unchanged", day) for day in (1, 1, 2, 3)]
    assert nights(root, *quiet) == [1, 1, 2, 3]
    assert nights(root, ("Promoted", 4), ("Unchanged", 4), ("Unchanged", 5)) == [0, 1, 2]


def test_a_failure_or_a_dry_run_says_nothing_about_it(root: Path) -> None:
    endings = [("Unchanged", 1), ("Failed", 2), ("DryRun", 3), ("Unchanged", 4)]
    assert nights(root, *endings) == [1, 1, 1, 2]


@pytest.mark.parametrize("content", ["", "{}", "[1]", '{"last": "2026-11-01", "nights": "many"}'])
def test_a_damaged_count_begins_again(root: Path, content: str) -> None:
    (root / ".state").mkdir()
    (root / ".state" / "nights.json").write_text(content)
    assert nights(root, ("Unchanged", 2)) == [1]


def test_a_count_that_cannot_be_kept_stops_nothing(
    root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (root / ".state").write_text("in the way")
    assert nights(root, ("Unchanged", 1)) == [1]
    assert caplog.messages == [f"{root}/.state/nights.json: File exists; this night is not counted"]


def test_endings_are_events_with_words(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[tuple[str, dict[str, str], dict[str, object]]] = []

    def emit(event: str, resource: dict[str, str], payload: dict[str, object]) -> None:
        said.append((event, resource, payload))

    monkeypatch.setattr(events, "emit_event", emit)
    with temporary_settings({PREFECT_API_URL: "http://127.0.0.1:9/api"}):
        for ending in ("Promoted", "Failed", "Unchanged", "DryRun"):
            events.tell(root, ending, "x" * 9000, "http://127.0.0.1/run")
    assert [(event, resource["adapt.nights"]) for event, resource, _ in said] == [
        ("adapt.champion.moved", "0"),
        ("adapt.retraining.unchanged", "1"),
    ]
    _, resource, payload = said[0]
    assert resource["prefect.resource.id"] == f"adapt.workspace.{root.name}"
    assert payload["message"] == "x" * events.LONGEST
    assert payload["link"] == "http://127.0.0.1/run"


def test_without_a_server_nobody_is_told(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[object] = []
    monkeypatch.setattr(events, "emit_event", lambda *event, **more: told.append(event))
    with temporary_settings({PREFECT_API_URL: None}):
        events.tell(root, "Promoted", "")
    assert not told
