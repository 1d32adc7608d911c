"""The retraining flow around stages that take no time: what runs, what is promoted, how it fails,
what it leaves.
"""

import hashlib
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect.testing.utilities import prefect_test_harness

from adapt import environment, params
from adapt.data.readers import digests
from adapt.data.sources import Source
from adapt.params import InputError
from adapt.registry import registry
from adapt.tracking import store
from flows import contest, options, outside, plan, prefect_api, report, retrain, turn
from tests.support import limits, quick, tracked, workspace

STAGES = ("data", "base", "pairs", "train", "answer", "evaluate")

pytestmark = pytest.mark.filterwarnings(
    "ignore::DeprecationWarning:dvc", "ignore:_NoneStep.value:DeprecationWarning"
)


@pytest.fixture(scope="module", autouse=True)
def prefect() -> Iterator[None]:
    """One temporary Prefect server for all tests of this file."""
    with prefect_test_harness(server_startup_timeout=limits.SERVER_START_S):
        yield


@dataclass(frozen=True)
class First:
    """The first retraining of a workspace, and how often it opened the MLflow store."""

    root: Path
    state: Any
    shown: str
    openings: int


@pytest.fixture(scope="module")
def first(prefect: None, tmp_path_factory: pytest.TempPathFactory) -> First:
    """Done once; tests that go on from there get a copy of the workspace."""
    root = tmp_path_factory.mktemp("first")
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(io.StringIO()) as shown:
        enter(root, patch)
        openings = tracked.openings(patch)
        quick.make(root)
        state = run()
        show(root)
        tracked.settled(root, os.environ)
    return First(root, state, shown.getvalue(), len(openings))


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A workspace in which nothing has been run."""
    enter(tmp_path, monkeypatch)
    return quick.make(tmp_path)


@pytest.fixture
def trained(first: First, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A workspace with version 1 as champion."""
    enter(tmp_path, monkeypatch)
    shutil.copytree(first.root, tmp_path, dirs_exist_ok=True, symlinks=True)
    return tmp_path


def enter(root: Path, patch: pytest.MonkeyPatch) -> None:
    for key, value in quick.environment(root).items():
        patch.setenv(key, value)
    for key in ("MLFLOW_TRACKING_URI", "ADAPT_PARENT_RUN", "PREFECT_API_URL"):
        patch.delenv(key, raising=False)
    patch.chdir(root)


def opened(root: Path) -> store.Store:
    config = params.load(params.read(root / "params.yaml"), "tracking", store.TrackingConfig)
    return store.Store(root, config)


def run(**options: Any) -> Any:
    return retrain.retrain(retrain.Retraining(**options), return_state=True)


def show(root: Path) -> None:
    """Print what the command line prints at the end."""
    ending = report.last(root)
    assert ending is not None
    report.show(root, ending)


def stages(root: Path) -> dict[str, str]:
    """How each stage ended in the last retraining, without how long it took."""
    ending = report.last(root)
    assert ending is not None
    return {
        stage: "unchanged" if outcome == "unchanged" else "ran"
        for stage, outcome in ending.stages.items()
    }


def test_a_better_model_becomes_champion(first: First, trained: Path) -> None:
    assert (first.state.name, first.state.message) == (
        "Promoted",
        "adapt version 1 was promoted to champion",
    )
    assert stages(trained) == dict.fromkeys(STAGES, "ran")
    assert registry.champion(opened(trained)) == "1"
    # Of 200 answers 80 hallucinate before and 20 after.
    assert re.search(r"Hal %\W+40\.0\W+10\.0\W+-30\.0", first.shown), first.shown
    assert "before = base model" in first.shown
    assert "make ui" in first.shown


def test_a_retraining_opens_the_store_once(first: First) -> None:
    assert first.openings == 1


def test_a_second_one_runs_nothing(trained: Path, capfd: pytest.CaptureFixture[str]) -> None:
    state = run()
    assert (state.name, state.message) == ("Unchanged", "nothing changed, no stage ran")
    assert retrain.main([]) == 0
    out, err = capfd.readouterr()
    assert "no stage ran" in out and "promoted to champion" in out
    assert "Beginning flow run" not in out + err  # Prefect is not even asked


def test_each_stage_is_a_task_and_a_child_run(first: First, trained: Path) -> None:
    flow_run_id = first.state.state_details.flow_run_id
    with get_client(sync_client=True) as client:
        tasks = client.read_task_runs(flow_run_filter=FlowRunFilter(id={"any_": [flow_run_id]}))
        artifacts = client.request("POST", "/artifacts/filter", json={}).json()
    assert sorted(task.name for task in tasks) == sorted((*STAGES, "promote"))
    ours = [a for a in artifacts if a["flow_run_id"] == str(flow_run_id)]
    assert [(a["key"], a["type"]) for a in ours] == [("retraining", "table")]
    tracked.settled(trained, quick.environment(trained))
    runs = store.client(trained).search_runs(["1"])
    parents = [r for r in runs if r.data.tags.get("adapt.kind") == "retraining"]
    assert [(r.info.status, r.data.tags["adapt.flow_run"]) for r in parents] == [
        ("FINISHED", str(flow_run_id))
    ]
    children = [
        r.info.run_name
        for r in runs
        if r.data.tags.get("mlflow.parentRunId") == parents[0].info.run_id
    ]
    assert sorted(children) == sorted(STAGES)


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Stands for measuring a downloaded champion, whose folder holds how well it does."""
    models: list[Path] = []

    def anew(config: Any, model: Path, root: Path, name: str) -> contest.Contestant:
        models.append(model)
        script: dict[str, Any] = {}
        exec(quick.STAGE.split("stage = sys.argv")[0], script)
        quality = float((model / "quality.txt").read_text())
        answers = script["answers"]("tuned", quality)
        scores = script["scores"]("tuned", quality).items()
        metrics = {key.removeprefix("tuned/"): value for key, value in scores}
        return contest.Contestant(name=name, metrics=metrics, judged=answers, counted={})

    monkeypatch.setattr(contest, "anew", anew)
    return models


def test_a_refusal_is_a_normal_ending_and_is_judged_against_the_champion(
    trained: Path, measured: list[Path], capfd: pytest.CaptureFixture[str]
) -> None:
    quick.tuned(trained, 0.85)
    state = run()
    assert (state.name, state.message) == ("Refused", "adapt version 2 was not promoted")
    assert stages(trained) == dict.fromkeys(STAGES, "unchanged") | {
        "train": "ran",
        "answer": "ran",
        "evaluate": "ran",
    }
    assert len(measured) == 1 and not measured[0].exists()
    assert registry.champion(opened(trained)) == "1"
    show(trained)
    shown = capfd.readouterr().out
    assert "failed: Hal 10.0 % -> 15.0 %" in shown
    assert "before = champion, version 1" in shown
    assert run().name == "Unchanged"


def test_same_weights_are_one_version(trained: Path, measured: list[Path]) -> None:
    quick.tuned(trained, 0.91)
    assert run(promote=False).message == "adapt version 2 was not promoted"
    quick.tuned(trained, 0.9)  # DVC has this model in its cache
    assert run().message == "adapt version 1 is the champion already"
    versions = store.client(trained).search_model_versions("name = 'adapt'")
    assert sorted(str(v.version) for v in versions) == ["1", "2"]
    assert run(force=True).message == "adapt version 1 is the champion already"
    assert stages(trained) == dict.fromkeys(STAGES, "ran")


def test_other_rules_ask_the_gate_again_and_run_no_stage(
    trained: Path, measured: list[Path]
) -> None:
    quick.tuned(trained, 1.0)
    assert run(promote=False).message == "adapt version 2 passed the gate and was held back"
    assert registry.champion(opened(trained)) == "1"
    ending = report.last(trained)
    assert ending is not None and ending.promotion.reasons[-1].startswith("passed, but")
    for least, message in (
        (90.0, "adapt version 2 was not promoted"),
        (2.0, "adapt version 2 was promoted to champion"),
    ):
        workspace.override(trained / "params.yaml", {"gate": {"hal": {"drop": least}}})
        assert run().message == message
        assert stages(trained) == dict.fromkeys(STAGES, "unchanged")


def test_a_moved_alias_makes_base_due(trained: Path) -> None:
    workspace.override(trained / "params.yaml", {"base": {"source": "models:/adapt@champion"}})
    assert plan.make(trained, force=False).due == ("base", "pairs", "train", "answer", "evaluate")
    made = trained / "results" / "base" / "source.json"
    made.write_text('{"source": "models:/adapt@champion", "version": "1"}')
    assert plan.make(trained, force=False).due == ()
    made.write_text('{"source": "models:/another@champion", "version": "1"}')
    assert plan.make(trained, force=False).forced == ("base",)


def test_a_benchmark_that_has_changed_makes_its_stage_due(trained: Path) -> None:
    (trained / "pope.json").write_text("[]")
    digest = hashlib.sha256(b"[]").hexdigest()
    read = trained / "results" / "answer" / "benchmarks.json"
    read.write_text(json.dumps({"pope": {"files": {"pope.json": digest}}}))
    before = plan.make(trained, force=False)
    assert before.forced == ()
    asked = plan.question(before.store, before.config, promote=True)
    assert asked["benchmarks"]["answer"] == {"pope": {"pope.json": digest}}
    (trained / "pope.json").write_text("[1]")
    todo = plan.make(trained, force=False)
    assert (todo.forced, todo.due) == (("answer",), ("answer", "evaluate"))
    assert todo.notes == ("answer: benchmark pope has changed (pope.json)",)
    (trained / "pope.json").unlink()
    assert plan.make(trained, force=False).forced == ("answer",)


def test_an_alias_without_a_model_is_left_to_the_stage(root: Path) -> None:
    assert outside.alias_moved(opened(root), "models:/nothing@champion") == ""
    assert outside.alias_moved(opened(root), "models:/nothing/3") == ""
    assert outside.alias_moved(opened(root), "scratch") == ""


def test_a_mistake_is_one_line_and_keeps_what_was_finished(
    trained: Path, measured: list[Path], capfd: pytest.CaptureFixture[str]
) -> None:
    workspace.override(trained / "params.yaml", {"data": {"max_rejected": 0.5}})
    quick.tuned(trained, 1.0)
    (trained / "train.mistake").touch()
    state = run()
    assert (state.name, state.message) == (
        "InputError",
        "adapt train: params.yaml: unknown key train.step",
    )
    output = "".join(capfd.readouterr())
    assert "Traceback" not in output
    assert "NoneType: None" not in output
    tracked.settled(trained, os.environ)
    failed = store.client(trained).search_runs(["1"], "attributes.status = 'FAILED'")
    assert [r.data.tags["adapt.error"] for r in failed] == [state.message]
    # `data` has run, with the same result as before; what comes after it was not reached, or did
    # not have to run.
    assert plan.make(trained, force=False).due == ("train", "answer", "evaluate")
    (trained / "train.mistake").unlink()
    assert run().message == "adapt version 2 was promoted to champion"
    assert stages(trained) == dict.fromkeys(STAGES, "unchanged") | {
        "train": "ran",
        "answer": "ran",
        "evaluate": "ran",
    }


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (
            lambda text: text.replace("beta:", "betta:"),
            "params.yaml: unknown key train.betta; did you mean train.beta?",
        ),
        (lambda text: text.replace("workers: 2", "workers: -1"), "params.yaml: train.workers: "),
        (lambda text: re.sub("\n  steps: .*", "", text), "params.yaml: missing key train.steps"),
    ],
)
def test_a_mistake_in_params_stops_before_anything_starts(
    root: Path, change: Callable[[str], str], line: str, capfd: pytest.CaptureFixture[str]
) -> None:
    path = root / "params.yaml"
    path.write_text(change(path.read_text()))
    assert retrain.main([]) == 2
    out, err = capfd.readouterr()
    assert out == ""
    assert err.startswith(f"retrain: {line}") and err.count("\n") == 1


def test_outside_a_workspace(
    root: Path, tmp_path_factory: pytest.TempPathFactory, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(InputError, match=r"no dvc\.yaml here"):
        plan.configuration(tmp_path_factory.mktemp("elsewhere"))


def test_two_retrainings_do_not_overlap(root: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with turn.taken(root):
        assert retrain.main([]) == 2
        assert run().name == "Busy"
    assert "another retraining is running here (process " in capfd.readouterr().err


def test_a_dry_run_says_what_would_run(root: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert retrain.main(["--dry-run"]) == 0
    assert "Would run: data, base, pairs, train, answer, evaluate." in capfd.readouterr().out
    assert not (root / "results").exists()
    assert run(dry_run=True).message.startswith("Would run: data")


def test_help_teaches_every_option(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        retrain.main(["--help"])
    assert ended.value.code == 0
    text = " ".join(capfd.readouterr().out.split())
    for field in retrain.Retraining.model_fields.values():
        assert field.description is not None and field.description in text
    with pytest.raises(SystemExit) as ended:
        retrain.main(["--timeout-minutes", "0"])
    assert ended.value.code == 2
    assert "--timeout-minutes: Input should be greater than or equal to 1" in capfd.readouterr().err


def test_a_time_limit_ends_the_stage(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (root / "sleep.txt").write_text("120")
    monkeypatch.setattr(options, "MINUTE", 0.1)
    state = run(timeout_minutes=60)
    assert (state.name, state.message) == (
        "TimedOut",
        "data: Task run exceeded timeout of 6.0 second(s)",
    )
    workspace.all_end(root)


@pytest.mark.parametrize(
    ("number", "temporary"),
    [(signal.SIGTERM, True), (signal.SIGINT, False), (signal.SIGKILL, True)],
)
def test_a_stopped_retraining_leaves_no_process(root: Path, number: int, temporary: bool) -> None:
    """Also with the temporary server that Prefect starts when there is no other."""
    (root / "sleep.txt").write_text("120")
    command = [sys.executable, "-m", "flows.retrain"]
    env = quick.environment(root) | (
        {} if temporary else {"PREFECT_API_URL": PREFECT_API_URL.value()}
    )
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    # A shell starts its background jobs with Ctrl-C ignored, and a child inherits that.
    usual = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    with subprocess.Popen(
        command, env=env, start_new_session=True, preexec_fn=usual, **pipes
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.rstrip().endswith("sleeping"):
                break
        process.send_signal(number)
        rest = process.stdout.read()
    if number == signal.SIGKILL:
        assert process.returncode == -signal.SIGKILL
    else:
        assert process.returncode == 130
        assert "retrain: stopped" in rest
    assert "Traceback" not in rest
    # Prefect's temporary server ends just after.
    workspace.all_end(root)
    runs = store.client(root).search_runs(["1"], "tags.`adapt.kind` = 'retraining'")
    assert [r.info.status for r in runs] == ["KILLED"]


def test_a_server_that_does_not_answer_is_one_line(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    address = "http://someone:secret@127.0.0.1:9/api"
    monkeypatch.setenv("PREFECT_API_URL", address)
    with temporary_settings({PREFECT_API_URL: address}), pytest.raises(InputError) as caught:
        prefect_api.require_answer(address)
    message = str(caught.value)
    assert message.startswith("PREFECT_API_URL: no Prefect server answers at http://")
    assert "secret" not in message and "\n" not in message


def test_data_that_has_changed_makes_its_stage_due(trained: Path) -> None:
    folder = trained / "mine"
    folder.mkdir()
    (folder / "rows.jsonl").write_text('{"question": "?", "chosen": "a", "rejected": "b"}\n')
    workspace.override(trained / "params.yaml", {"data": {"source": "mine"}})
    config = plan.configuration(trained)["data"]
    assert outside.data_changed(trained, config) == ""
    made = trained / "results" / "data" / "source.json"
    revision = Source.open("mine", trained).fingerprint()
    made.write_text(json.dumps({"source": "mine", "revision": revision}))
    assert outside.data_changed(trained, config) == ""
    (folder / "rows.jsonl").write_text('{"question": "?", "chosen": "a", "rejected": "c"}\n')
    assert outside.data_changed(trained, config) == "mine has changed"


def test_rows_to_keep_that_have_changed_make_their_stage_due(trained: Path) -> None:
    keep = {"kinds": ["other"], "images": 3, "path": "mine.parquet"}
    workspace.override(trained / "params.yaml", {"pairs": {"keep": keep}})
    section = plan.configuration(trained)["pairs"].keep
    (trained / "mine.parquet").write_bytes(b"rows")
    assert outside.kept_changed(trained, section) == ""
    made = trained / "results" / "pairs" / "report.json"
    noted = {"path": "mine.parquet", "sha256": outside.sha256(trained / "mine.parquet")}
    made.write_text(json.dumps({"keep": noted}))
    assert outside.kept_changed(trained, section) == ""
    (trained / "mine.parquet").write_bytes(b"other rows")
    assert outside.kept_changed(trained, section) == "mine.parquet has changed"


def test_a_brought_base_that_has_changed_makes_its_stage_due(trained: Path) -> None:
    shutil.copytree(trained / "results" / "base" / "model", trained / "mine")
    made = trained / "results" / "base" / "source.json"
    files = digests.of_folder(trained / "mine", environment.state_dir(trained) / "digests.json")
    made.write_text(json.dumps({"source": "mine", "version": "", "files": files}))
    assert outside.folder_changed(trained, "mine") == ""
    (trained / "mine" / "config.json").write_text("{}")
    assert outside.folder_changed(trained, "mine") == "mine has changed"
