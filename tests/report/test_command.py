"""The command, on a store with real runs in it, and the report that a retraining leaves."""

from pathlib import Path
from typing import Any

import pytest

from adapt.report import keeping
from adapt.report.__main__ import main
from adapt.tracking import runs
from adapt.tracking.store import Store
from tests.report.pages import Page, offline
from tests.support import tracked
from tests.tracking.test_runs import CONFIG


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    made = tracked.workspace(tmp_path, monkeypatch)
    monkeypatch.chdir(tmp_path)
    with (tmp_path / "params.yaml").open("a") as file:
        file.write("tracking: {experiment: adapt, model: adapt}\n")
    tracked.results(tmp_path)
    return made


def finished(store: Store, name: str, **tags: str) -> str:
    """A retraining that has ended, and that MLflow has; its journal's id."""
    run_id = runs.start_retraining(store, name, {})
    runs.finish_retraining(store, run_id, tracked.STAGES, tags)
    return run_id


def reported(capsys: pytest.CaptureFixture[str], *words: str) -> Page:
    assert main([*words, "--out", "out.html"]) == 0, capsys.readouterr().err
    assert "open it in a browser" in capsys.readouterr().out
    page = Page(Path("out.html").read_text(encoding="utf-8"))
    offline(page)
    return page


def test_the_last_retraining_is_told_from_mlflow_alone(
    store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    finished(store, "yesterday")
    finished(store, "tonight <b>", **{"adapt.ending": "refused", "adapt.reasons": "failed: Hal"})
    tracked.sent(store)
    page = reported(capsys, "last")
    for told in ("ADAPT: tonight <b>", "Not promoted", "Hal %", "50.0", "-50.0", "evaluate"):
        assert told in page.text, told
    assert "unchanged" in page.text and "3 rows" in page.text
    # 1. Curves and pictures are those of the stages, the answers those of the table.
    labels = " ".join(one.get("aria-label", "") for one in page.all("svg"))
    assert "Visual mass by generated token: after from 0.8 to 0.7" in labels
    assert "Loss by step: tonight <b> from 0.7 to 0.5" in labels
    assert [one["alt"].split(" ")[0] for one in page.all("img")] == ["The", "Test"]
    assert "a house and a " in page.text and "dog" in page.text
    # 2. A name, or an id, is as good; two are compared.
    both = reported(capsys, "yesterday", "tonight <b>")
    assert "A: yesterday" in both.text and "Nothing: both runs have the same" in both.text
    run = store.client.search_runs([store.experiment_id], "attributes.run_name = 'yesterday'")[0]
    assert "ADAPT: yesterday" in reported(capsys, run.info.run_id).text


def test_a_retraining_that_was_cut_short_has_what_its_stages_have(
    store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    parent = runs.start_retraining(store, "tonight", {})
    with runs.stage_run(store, "train", CONFIG, parent=parent) as run:
        for step in (1, 2):
            run.log_step(step, {"loss": 1.0 / step})
    runs.fail_retraining(store, parent, "evaluate: no room on the disk")
    tracked.sent(store)
    page = reported(capsys, "last")
    assert "Failed" in page.text and "evaluate: no room on the disk" in page.text
    assert any("from 1 to 0.5" in one.get("aria-label", "") for one in page.all("svg"))


@pytest.mark.parametrize("wanted", ["nobody", "it's", "\x1b[2J", "' or 1=1", "a\"b'c"])
def test_a_run_that_is_not_there_is_one_line(
    store: Store, capsys: pytest.CaptureFixture[str], wanted: str
) -> None:
    assert main(["last"]) == 2
    assert "no retraining is recorded yet; `make run` makes one" in capsys.readouterr().err
    assert main([wanted]) == 2
    line = capsys.readouterr().err
    assert line.count("\n") == 1 and "no run has this id or name" in line and "\x1b" not in line
    assert not Path("report.html").exists()


def test_a_workspace_without_a_store_gets_none_by_being_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setenv("ADAPT_STATE", str(tmp_path / "state"))
    assert main(["last"]) == 2
    assert "nothing is recorded there yet" in capsys.readouterr().err
    assert not (tmp_path / "state").exists()


def test_a_report_lies_beside_its_run(store: Store) -> None:
    run_id = finished(store, "tonight", **{"adapt.ending": "promoted"})
    tracked.sent(store)
    assert keeping.keep(store, run_id, 5.0) == ""
    known: Any = runs.recorded(store, run_id)
    path = store.client.download_artifacts(known, keeping.NAME)
    page = Page(Path(path).read_text(encoding="utf-8"))
    offline(page)
    assert "Promoted to champion" in page.text


def test_a_report_that_cannot_be_made_now_is_one_sentence(store: Store) -> None:
    open_run = tracked.retraining(store)
    assert keeping.keep(store, open_run, 0.3) == "MLflow has not got all of the run yet"
    assert "\n" not in keeping.keep(store, "0" * 32, 0.3)
