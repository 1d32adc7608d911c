"""A journal that is damaged, an entry that is refused, a clock that jumps, a folder that goes."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from adapt.tracking import __main__ as command
from adapt.tracking import journal, lines, refusals, runs
from adapt.tracking.store import Store
from tests.support import recording, tracked
from tests.support.faults import fault


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.setattr(refusals, "WAITS_S", (0.01, 0.02))
    return tracked.workspace(tmp_path, monkeypatch)


def ended(store: Store, steps: int = 5) -> Path:
    """The journal of a stage that has ended, of which nothing is sent."""
    with runs.stage_run(store, "train", recording.CONFIG) as run:
        recording.log(run, range(1, steps + 1))
    return journal.home(store.root) / run.run_id


def points(folder: Path) -> Path:
    (path,) = (folder / journal.POINTS).iterdir()
    return path


def flip(data: bytes) -> bytes:
    place = data.index(b'"step":3')
    return data[:place] + b'"step":7' + data[place + 8 :]


@fault(
    "the machine loses power: a line of a journal is torn, a block is empty, a byte is wrong",
    keeps="all whole lines; the history of the stage has the rest",
    says="run ID: points of curves is left out: a line is damaged",
    then="the rest is sent",
)
@pytest.mark.parametrize(
    ("damage", "kept"),
    [
        (lambda data: data[:-9], [1, 2, 3, 4]),
        (lambda data: data[:-30] + b"\0" * 30, [1, 2, 3, 4]),
        (lambda data: data + b"\0" * 4096, [1, 2, 3, 4, 5]),
        (flip, [1, 2, 4, 5]),
        (lambda data: b"", []),
    ],
)
def test_a_damaged_line_costs_itself(
    store: Store, damage: Callable[[bytes], bytes], kept: list[int]
) -> None:
    folder = ended(store)
    path = points(folder)
    path.write_bytes(damage(path.read_bytes()))
    assert tracked.sent(store) == []
    (run,) = recording.found(store)
    assert run.info.status == "FINISHED" and recording.curve(store, run) == kept


def test_the_entry_behind_a_torn_one_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "entries"
    lines.append(path, {"a": 1})
    path.write_bytes(path.read_bytes() + b'\n12345678 {"torn')
    assert [line.record for line in lines.read(path)] == [{"a": 1}]
    lines.append(path, {"b": "é\n"})
    assert [line.record for line in lines.read(path)] == [{"a": 1}, None, {"b": "é\n"}]
    whole = lines.read(path)
    assert lines.read(path, whole[1].end) == whole[2:]


def test_lines_longer_than_a_chunk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lines, "CHUNK", 16)
    path, offset, found = tmp_path / "entries", 0, []
    records = [{"text": "x" * size} for size in (1, 40, 3, 100)]
    for record in records:
        lines.append(path, record)
    while more := lines.read(path, offset):
        found, offset = found + [line.record for line in more], more[-1].end
    assert found == records


def test_a_journal_cut_at_any_byte_is_sent_and_closed(store: Store) -> None:
    folder = ended(store)
    whole = (folder / journal.ENTRIES).read_bytes()
    begun = whole.index(b"\n", 1) + 1
    for size in range(begun, len(whole), 29):
        (folder / journal.ENTRIES).write_bytes(whole[:size])
        shutil.copytree(folder, folder.with_name(f"{size:032x}"))
    tracked.sent(store)
    assert journal.everything(store.root) == []
    assert {run.info.status for run in recording.found(store)} == {"FINISHED"}


@fault(
    "the first line of a journal, which says what the run is, is damaged",
    keeps="all other runs",
    says="run ID: what is left of its record is left out: its first line is damaged",
)
def test_a_journal_without_its_beginning_is_put_aside(
    store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    path = ended(store) / journal.ENTRIES
    path.write_bytes(b"\nx" + path.read_bytes()[2:])
    ended(store)
    assert tracked.sent(store) == []
    assert "its first line is damaged" in capsys.readouterr().out
    assert len(recording.found(store)) == 1


@fault(
    "MLflow refuses one entry for good (4xx), such as a metric's name that it does not allow",
    keeps="everything else, also the other points of the same request",
    says="run ID: a point, ... is left out: Invalid value ...",
    then="it is in refused.jsonl, and asked for no more",
)
def test_an_entry_that_is_refused_keeps_nothing_up(
    store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = recording.leave(store.root, range(1, 41))
    history = (folder / "history.csv").read_text().splitlines()
    (folder / "history.csv").write_text(
        "\n".join([f"{history[0]},a*b", *(f"{row},1.0" for row in history[1:])]) + "\n"
    )
    with runs.stage_run(store, "train", recording.CONFIG) as run:
        for step in range(1, 21):
            run.log_step(step, {"loss": step / 100, **({"a*b": 1.0} if step == 7 else {})})
        run.tag({"good": "1", "b*d": "2"})
        run.log_results(folder)
    assert tracked.sent(store) == []
    (found,) = recording.found(store)
    assert found.info.status == "FINISHED" and found.data.tags["good"] == "1"
    assert recording.curve(store, found) == list(range(1, 41))
    told = capsys.readouterr().out.splitlines()
    assert all("is left out: " in line for line in told)
    assert [sum(name in line for line in told) for name in ("a*b", "b*d")] == [3, 1]
    command.status(store.root)
    assert "MLflow has refused some entries; they are in " in capsys.readouterr().out


@fault(
    "the server fails over one entry again and again (5xx)",
    keeps="everything else, after three tries",
    says="run ID: train.params/... is left out: ...",
)
def test_an_entry_that_breaks_the_server_is_put_aside(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, tries = MlflowClient.log_batch, [0]

    def breaks(self: MlflowClient, run_id: str, metrics: Any = (), **more: Any) -> Any:
        if any(metric.step == 3 for metric in metrics):
            tries[0] += 1
            raise MlflowException("the server stumbled over it")
        return write(self, run_id, metrics=metrics, **more)

    monkeypatch.setattr(MlflowClient, "log_batch", breaks)
    ended(store)
    assert tracked.sent(store) == []
    (run,) = recording.found(store)
    assert recording.curve(store, run) == [1, 2, 4, 5]
    assert tries[0] == 9, "three times for five points, then for two and for the one"


@fault(
    "somebody deletes a run in MLflow while it is recorded",
    keeps="the training, and all other runs",
    says="run ID: what is left of its record is left out: its run was deleted in MLflow",
    then="it stays deleted",
)
def test_a_run_that_was_deleted_stays_so(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    with runs.stage_run(store, "train", recording.CONFIG) as run:
        recording.log(run, range(1, 3))
        tracked.sent(store)
        store.client.delete_run(runs.recorded(store, run.run_id))
        recording.log(run, range(3, 5))
        tracked.sent(store)
    assert tracked.sent(store) == []
    assert "its run was deleted in MLflow" in capsys.readouterr().out
    assert recording.found(store) == []


@fault(
    "a picture or a table in the results cannot be read",
    keeps="the rest of the results, and the stage",
    says="run ID: stage.evaluate/panels/... is left out: cannot identify image file",
)
def test_a_damaged_result_costs_itself(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tracked.results(store.root) / "evaluate"
    (folder / "panels" / "scene#1.png").write_bytes(b"no picture")
    (folder / "judged.parquet").write_bytes(b"no table")
    (folder / "curves.csv").write_text("arm,signal\ntuned\n")
    with runs.stage_run(store, "evaluate", recording.CONFIG) as run:
        run.log_results(folder)
    assert tracked.sent(store) == []
    (found,) = recording.found(store)
    assert found.data.metrics["test/base/hal"] == 50.0
    assert len(capsys.readouterr().out.splitlines()) == 3


@fault(
    "the clock is put back by an hour during a training",
    keeps="every step, in its order; no run ends before it has begun",
)
def test_a_clock_that_is_put_back(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    now = journal.now
    with runs.stage_run(store, "train", recording.CONFIG) as run:
        recording.log(run, range(1, 6))
        monkeypatch.setattr(journal, "now", lambda: now() - 3_600_000)
        recording.log(run, range(6, 11))
        run.log_results(recording.leave(store.root, range(1, 11)))
    assert tracked.sent(store) == []
    (found,) = recording.found(store)
    assert found.info.end_time == found.info.start_time
    assert recording.curve(store, found) == list(range(1, 11))
    assert found.data.metrics["train/loss"] == 0.1, "the last step is the latest value"


@fault(
    "the state folder is removed while a stage runs",
    keeps="the stage and its results",
    says="adapt: ... cannot be written (No such file or directory); the work goes on",
)
def test_a_lost_folder_stops_nothing(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    with runs.stage_run(store, "train", recording.CONFIG) as run:
        shutil.rmtree(journal.home(store.root))
        recording.log(run, range(1, 100))
        run.tag({"a": "b"})
        run.log_results(recording.leave(store.root, range(1, 4)))
    (told,) = capsys.readouterr().err.splitlines()
    assert "cannot be written (No such file or directory); the work goes on" in told
