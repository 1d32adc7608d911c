"""Stages as Ray jobs, against a real head: results, mistakes, crashes, kills; and what is refused
before submitting.
"""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import requests
from fsspec.implementations.local import LocalFileSystem

import adapt
from adapt import addresses, params
from adapt.cluster import jobs, remains, remote, storage, submit
from adapt.cluster.followers import Follower, following
from adapt.params import InputError, Settings, Shared
from adapt.tracking.live import Live
from tests.support import limits
from tests.support.ray_head import RayHead, ray_head

ECHO = '''
"""A stage that copies what it reads."""

import time
from pathlib import Path

from adapt.params import InputError, Settings, Shared


class Config(Settings):
    mode: str
    layers: tuple[int, ...]
    seed: Shared[int]


def run(config, results, out, log):
    print("mode", config.mode)
    if config.mode == "mistake":
        raise InputError("pairs.images: there are none")
    if config.mode == "crash":
        raise RuntimeError("the weights are gone")
    if config.mode == "hang":
        time.sleep(600)
    while config.mode.startswith("wait ") and not Path(config.mode[5:]).exists():
        time.sleep(0.1)
    (out / "model").mkdir()
    weights = (results / "base/model/weights.bin").read_bytes()
    (out / "model" / "weights.bin").write_bytes(weights * 2)
    (out / "history.csv").write_text((results / "pairs/pairs.parquet").read_text())
    log(1, {"loss": 0.5})
    log(2, {"loss": 0.25})
    return {"sum": float(sum(config.layers)), "seed": float(config.seed)}
'''

# What the launcher does around a stage, without MLflow's run: one line and code 2 for a mistake.
SUBMIT = """
import json, sys
from pathlib import Path
from adapt import environment, params
from adapt.cluster import submit
from adapt.stages.echo import Config
from adapt.tracking.live import Live

environment.prepare(Path.cwd())
content, uri, run_id = json.loads(sys.argv[1])
log = Live(uri, run_id, "echo/") if uri else print
out = Path("out")
out.mkdir(exist_ok=True)
try:
    inputs = ["base/model", Path("pairs/pairs.parquet")]
    config, results = params.load(content, "echo", Config), Path("results").resolve()
    metrics = submit.submit("echo", config, inputs, results, out, log)
except params.InputError as error:
    print(f"adapt echo: {error}", file=sys.stderr)
    raise SystemExit(2)
(out / "metrics.json").write_text(json.dumps(metrics))
"""


@pytest.fixture(scope="module")
def head() -> Iterator[RayHead]:
    with ray_head() as running:
        yield running
    assert running.processes() == []


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    """A project with one stage more than ours, and earlier results that git would ignore."""
    shutil.copytree(
        Path(adapt.__file__).parent,
        tmp_path / "adapt",
        ignore=shutil.ignore_patterns("__pycache__"),
    )
    (tmp_path / "adapt" / "stages" / "echo.py").write_text(ECHO)
    (tmp_path / ".gitignore").write_text("results/\n.state/\n")
    for name, content in {
        "base/model/weights.bin": b"\0\1",
        "base/model/sub/config.json": b"{}",
        "pairs/pairs.parquet": b"pairs",
    }.items():
        file = tmp_path / "results" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
    return tmp_path


def command(mode: str, uri: str = "", run_id: str = "") -> list[str]:
    content = {"seed": 3, "echo": {"mode": mode, "layers": [1, 4]}}
    return [sys.executable, "-c", SUBMIT, json.dumps([content, uri, run_id])]


def client_env(head: RayHead, workspace: Path) -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("RAY_", "ADAPT_", "MLFLOW_"))}
    return {**kept, **head.env, "HOME": str(workspace)}


def submitted(
    head: RayHead, workspace: Path, mode: str, *tracking: str, **env: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(mode, *tracking),
        cwd=workspace,
        env={**client_env(head, workspace), **env},
        capture_output=True,
        text=True,
        timeout=limits.COMMAND_S,
    )


def test_a_result_comes_back_and_the_second_time_nothing_is_uploaded(
    head: RayHead, workspace: Path
) -> None:
    from mlflow import MlflowClient

    uri = f"sqlite:///{workspace}/mlflow.db"
    client = MlflowClient(uri)
    run_id = client.create_run(
        client.create_experiment("e", str(workspace / "artifacts"))
    ).info.run_id
    first = submitted(head, workspace, "copy", uri, run_id)
    assert first.returncode == 0, first.stderr + first.stdout

    assert (workspace / "out/model/weights.bin").read_bytes() == b"\0\1\0\1"
    assert (workspace / "out/history.csv").read_text() == "pairs"
    assert json.loads((workspace / "out/metrics.json").read_text()) == {"sum": 5.0, "seed": 3.0}
    assert [(p.step, p.value) for p in client.get_metric_history(run_id, "echo/loss")] == [
        (1, 0.5),
        (2, 0.25),
    ]
    assert "mode copy" in first.stdout.splitlines()
    storage = workspace / ".state/ray/storage"
    assert "model: 2 files, 0.0 MB: uploading to" in first.stdout
    (job,) = (storage / "jobs").iterdir()
    names = ["collected.json", "job.json", "out", "result.json"]
    assert sorted(path.name for path in job.iterdir() if path.name != "followers") == names
    assert not list(job.glob("followers/*")), "nobody waits any more"
    inputs = {path: path.stat().st_mtime_ns for path in storage.glob("inputs/**/*.*")}
    assert len(inputs) == 3 + 2  # three files, two lists of files

    # For a day the result is there for whoever asks for the same: no job, no upload.
    shutil.rmtree(workspace / "out")
    second = submitted(head, workspace, "copy")
    assert second.returncode == 0, second.stderr
    assert f"{job}: the result is there already" in second.stdout
    assert (workspace / "out/history.csv").read_text() == "pairs"
    assert json.loads((workspace / "out/metrics.json").read_text()) == {"sum": 5.0, "seed": 3.0}
    assert (
        "uploading" not in second.stdout.lower()
        and second.stdout.count("already on the storage") == 2
    )
    # A damaged one is made again, by a job of another name.
    (job / "out/history.csv").write_text("PAIRS")
    shutil.rmtree(workspace / "out")
    third = submitted(head, workspace, "copy")
    assert third.returncode == 0, third.stderr
    assert "it is made again" in third.stderr and f"job {job.name}-2 on" in third.stdout
    assert (workspace / "out/history.csv").read_text() == "pairs"
    assert {path: path.stat().st_mtime_ns for path in storage.glob("inputs/**/*.*")} == inputs


def test_a_users_mistake_in_the_job_is_the_same_one_line(head: RayHead, workspace: Path) -> None:
    done = submitted(head, workspace, "mistake")
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1] == "adapt echo: pairs.images: there are none"
    assert "Traceback" not in done.stderr + done.stdout
    assert list((workspace / "out").iterdir()) == []


def test_a_crash_in_the_job_shows_its_last_lines(head: RayHead, workspace: Path) -> None:
    done = submitted(head, workspace, "crash")
    assert done.returncode == 1
    assert (
        "RuntimeError: adapt-echo-" in done.stderr
        and "failed on the cluster (exit code 1)" in done.stderr
    )
    assert done.stderr.rstrip().endswith("RuntimeError: the weights are gone")


def test_a_killed_submitter_leaves_no_job(head: RayHead, workspace: Path) -> None:
    with (workspace / "log").open("wb") as log:
        submitter = subprocess.Popen(
            command("hang"),
            cwd=workspace,
            env=client_env(head, workspace),
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    wait_for(lambda: "mode hang" in (workspace / "log").read_text())
    assert jobs_of(head)
    submitter.send_signal(signal.SIGTERM)
    assert submitter.wait(30) == 128 + signal.SIGTERM
    assert "stopped adapt-echo-" in (workspace / "log").read_text()
    assert list((workspace / ".state/ray/storage/jobs").glob("*/*")) == []
    wait_for(lambda: not jobs_of(head))


def test_who_leaves_ends_no_job_that_others_wait_for(head: RayHead, workspace: Path) -> None:
    """Two with the same work share one job; the first is told to end while it runs."""
    gate = workspace / "gate"
    processes = []
    for name in ("one", "two"):
        with (workspace / name).open("wb") as log:
            processes.append(
                subprocess.Popen(
                    command(f"wait {gate}"),
                    cwd=workspace,
                    env=client_env(head, workspace),
                    stdout=log,
                    stderr=subprocess.STDOUT,
                )
            )
        wait_for(lambda name=name: "mode wait" in (workspace / name).read_text())
    assert "which runs already" in (workspace / "two").read_text()
    processes[0].send_signal(signal.SIGTERM)
    assert processes[0].wait(30) == 128 + signal.SIGTERM
    assert "to others who wait for it" in (workspace / "one").read_text()
    gate.touch()
    assert processes[1].wait(limits.STEP_S) == 0, (workspace / "two").read_text()
    assert (workspace / "out/history.csv").read_text() == "pairs"


def test_without_the_right_token_one_line_says_so(head: RayHead, workspace: Path) -> None:
    done = submitted(head, workspace, "copy", RAY_AUTH_TOKEN="0" * 32)
    problem = f"RAY_API_SERVER_ADDRESS: {addresses.host(head.address)} wants its own token"
    advice = "set RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH"
    assert (done.returncode, done.stderr) == (2, f"adapt echo: {problem}; {advice}\n")


def jobs_of(head: RayHead) -> list[str]:
    return [
        line
        for line in head.commands()
        if "-m adapt.cluster.remote" in line and "kill -s 0" not in line
    ]


def wait_for(condition: Callable[[], bool], limit: float = limits.STEP_S) -> None:
    deadline = time.monotonic() + limit
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


# ---- without a cluster -------------------------------------------------------------------------


class Anchor(Settings):
    anchor_tokens: int


class Config(Settings):
    layers: tuple[int, ...]
    name: str | None = None
    anchor: Shared[Anchor]
    seed: Shared[int]


def test_a_config_survives_the_journey() -> None:
    config = Config(layers=(1, 2), anchor=Anchor(anchor_tokens=5), seed=7)
    content = params.as_params("train", config)
    assert content == {
        "train": {"layers": [1, 2]},
        "anchor": {"anchor_tokens": 5},
        "seed": 7,
    }
    assert params.load(json.loads(json.dumps(content)), "train", Config) == config


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, None),
        ({"RAY_API_SERVER_ADDRESS": ""}, None),
        ({"RAY_API_SERVER_ADDRESS": "http://ray:8265"}, "http://ray:8265"),
        ({"RAY_API_SERVER_ADDRESS": "http://ray:8265", "RAY_ADDRESS": "10.0.0.1:6379"}, None),
        ({"RAY_API_SERVER_ADDRESS": "http://ray:8265", "RAY_JOB_ID": "01000000"}, None),
    ],
)
def test_a_job_does_not_submit_itself(
    variables: dict[str, str], expected: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_only(monkeypatch, variables)
    assert submit.address() == expected


def set_only(monkeypatch: pytest.MonkeyPatch, variables: dict[str, str]) -> None:
    for name in (
        "RAY_API_SERVER_ADDRESS",
        "RAY_ADDRESS",
        "RAY_JOB_ID",
        "ADAPT_RAY_STORAGE",
        "ADAPT_STATE",
    ):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)


REMOTE = {
    "RAY_API_SERVER_ADDRESS": "http://me:pw@ray.example:8265",
    "ADAPT_RAY_STORAGE": "s3://bucket/adapt",
}


@pytest.mark.parametrize(
    ("variables", "tracking", "message"),
    [
        (
            {"ADAPT_RAY_STORAGE": ""},
            "http://mlflow.example",
            "ADAPT_RAY_STORAGE: not set, and ray.example:8265 is",
        ),
        (
            {"ADAPT_RAY_STORAGE": "s3://k:v@bucket"},
            "http://mlflow.example",
            "ADAPT_RAY_STORAGE: must not carry",
        ),
        (
            {},
            "sqlite:////state/mlflow.db",
            "MLFLOW_TRACKING_URI: sqlite:////state/mlflow.db is on this machine only",
        ),
        (
            {},
            "http://127.0.0.1:5000",
            "MLFLOW_TRACKING_URI: http://127.0.0.1:5000 is on this machine only",
        ),
        (
            {},
            "http://a:b@mlflow.example",
            "MLFLOW_TRACKING_URI: http://mlflow.example carries a password",
        ),
        (
            {"RAY_API_SERVER_ADDRESS": "ray://ray.example"},
            "http://mlflow.example",
            "ray://ray.example is no http",
        ),
    ],
)
def test_what_a_cluster_cannot_reach_is_refused_before_it_is_asked(
    variables: dict[str, str],
    tracking: str,
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    set_only(monkeypatch, REMOTE | variables)
    with pytest.raises(InputError) as error:
        submit.submit(
            "train", None, [], tmp_path / "results", tmp_path / "out", Live(tracking, "1")
        )
    assert (
        message in str(error.value)
        and "pw" not in str(error.value)
        and ":b@" not in str(error.value)
    )


def test_workers_read_the_storage_only_on_a_cluster(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "weights").write_bytes(b"1")
    storage = {"ADAPT_RAY_STORAGE": str(tmp_path / "storage")}
    set_only(monkeypatch, storage)
    assert submit.share(tmp_path / "model") == str(tmp_path / "model")
    assert submit.checkpoints(tmp_path / "state") == {"storage_path": str(tmp_path / "state")}
    set_only(monkeypatch, storage | {"RAY_ADDRESS": "10.0.0.1:6379"})
    assert submit.share(tmp_path / "model").startswith(str(tmp_path / "storage/inputs/"))
    assert submit.checkpoints(tmp_path / "state") == {
        "storage_path": str(tmp_path / "storage/checkpoints")
    }
    monkeypatch.setenv("ADAPT_RAY_JOB", str(tmp_path / "storage/jobs/one"))
    assert submit.checkpoints(tmp_path / "state") == {
        "storage_path": str(tmp_path / "storage/jobs/one/checkpoints")
    }


def test_lines_are_printed_once_although_the_log_is_read_again(
    capsys: pytest.CaptureFixture[str],
) -> None:
    printer = jobs._Printer()
    printer.feed("one\ntw", 0)
    assert capsys.readouterr().out == "one\n"
    printer.feed("one\ntwo\n", 0)  # a new connection starts from the beginning
    printer.feed("three", 8)
    assert capsys.readouterr().out == "two\n"
    printer.feed("one\ntwo\nthree", 0)
    assert printer.finish() == ["one", "two", "three"]
    assert capsys.readouterr().out == "three\n"


class Flaky:
    """The Jobs client of a cluster whose first two log streams break."""

    log = "one\ntwo\nthree\n"

    def __init__(self) -> None:
        self.streams = 0

    async def tail_job_logs(self, job_id: str) -> AsyncIterator[str]:
        self.streams += 1
        yield self.log[: 5 * self.streams]
        if self.streams < 3:
            raise ConnectionResetError("reset by peer")

    def get_job_info(self, job_id: str) -> SimpleNamespace:
        from ray.job_submission import JobStatus

        return SimpleNamespace(status=JobStatus.SUCCEEDED, driver_exit_code=0, message="done")

    def get_job_logs(self, job_id: str) -> str:
        return self.log


def test_a_connection_that_breaks_is_opened_again(capsys: pytest.CaptureFixture[str]) -> None:
    client = Flaky()
    assert jobs._follow(client, "job") == jobs.EndedJob(
        status="SUCCEEDED", exit_code=0, lines=["one", "two", "three"]
    )
    assert (client.streams, capsys.readouterr().out) == (3, "one\ntwo\nthree\n")


def test_a_cluster_that_stays_away_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "PATIENCE_S", 0.0)
    with pytest.raises(RuntimeError, match="lost the cluster while job ran: reset by peer"):
        jobs._follow(Flaky(), "job")


def test_a_request_that_nobody_answers_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "ANSWER_S", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = "http://{}:{}".format(*silent.getsockname())
        with pytest.raises(InputError, match=r"no Ray Jobs API at 127.0.0.1:\d+ \(.*timed out"):
            jobs.connect(url)


def test_the_cluster_is_asked_again_while_it_is_out_of_reach(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(jobs, "POLL_S", 0.0)
    problems = [requests.ConnectionError("refused"), requests.ReadTimeout("silence")]

    def ask() -> str:
        if problems:
            raise problems.pop()
        return "here"

    assert jobs._answered(ask, "job") == "here"
    problems.append(requests.ConnectionError("refused"))
    monkeypatch.setattr(jobs, "PATIENCE_S", 0.0)
    with pytest.raises(RuntimeError, match="lost the cluster while job ran: refused"):
        jobs._answered(ask, "job")


def test_a_submission_whose_answer_was_lost_makes_no_second_job(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(jobs, "POLL_S", 0.0)
    client = Forgetful()
    assert jobs._answered(lambda: jobs._submit(client, "a", {}), "a") == "a"
    assert client.statuses == {"a": "RUNNING"}


def test_a_job_that_cannot_be_stopped_is_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(jobs, "STOP_LIMIT_S", 0.1)
    jobs._stop(Away(), "a")
    assert (
        capsys.readouterr().err == "a was not seen to end; if it runs, `ray job stop a` stops it\n"
    )


class Away:
    """The Jobs client of a cluster that is out of reach."""

    def get_job_status(self, job_id: str) -> object:
        raise requests.ConnectionError("refused")


class Known:
    """The Jobs client of a cluster that knows jobs by their status."""

    def __init__(self, **statuses: str) -> None:
        self.statuses = statuses

    def get_job_status(self, job_id: str) -> object:
        from ray.job_submission import JobStatus

        if job_id not in self.statuses:
            raise RuntimeError("Request failed with status code 404: Job does not exist")
        return JobStatus(self.statuses[job_id])

    def submit_job(self, submission_id: str, **job: object) -> None:
        raise RuntimeError(f"Job with submission_id {submission_id} already exists")


class Forgetful(Known):
    """Takes a job, and its answer is lost."""

    def submit_job(self, submission_id: str, **job: object) -> None:
        if submission_id in self.statuses:
            super().submit_job(submission_id)
        self.statuses[submission_id] = "RUNNING"
        raise requests.ReadTimeout("silence")


@pytest.mark.parametrize(
    ("statuses", "place"),
    [
        ({}, ("a", False)),
        ({"a": "RUNNING"}, ("a", True)),
        ({"a": "PENDING"}, ("a", True)),
        ({"a": "FAILED"}, ("a-2", False)),
        ({"a": "STOPPED", "a-2": "RUNNING"}, ("a-2", True)),
        ({"a": "SUCCEEDED", "a-2": "FAILED"}, ("a-3", False)),
    ],
)
def test_a_job_is_found_by_its_name(statuses: dict[str, str], place: tuple[str, bool]) -> None:
    assert jobs._place(Known(**statuses), "a") == place


def test_who_is_slower_with_the_same_work_has_the_faster_ones_job() -> None:
    assert jobs._submit(Known(a="RUNNING"), "a", {}) == "a"
    with pytest.raises(RuntimeError, match="already exists"):
        jobs._submit(Known(), "a", {})


def test_a_result_stays_for_others_and_goes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    collected, cut_off = (tmp_path / "jobs" / f"adapt-train-{digit * 16}" for digit in "01")
    for folder, file in ((collected, remains.COLLECTED), (cut_off, "job.json")):
        folder.mkdir(parents=True)
        (folder / file).write_text("{}")
    remains.sweep(str(tmp_path), "adapt-train-now")
    assert collected.exists() and cut_off.exists()
    monkeypatch.setattr(remains, "RESULT_S", -1.0)
    remains.sweep(str(tmp_path), collected.name)
    assert collected.exists(), "asked for now"
    remains.sweep(str(tmp_path), "adapt-train-now")
    assert not collected.exists() and cut_off.exists()


def test_work_that_is_still_followed_is_not_over(tmp_path: Path) -> None:
    """A training may take longer than what nobody collects is kept."""
    folder = tmp_path / "jobs" / f"adapt-train-{'0' * 16}"
    folder.mkdir(parents=True)
    (folder / "job.json").write_text("{}")
    os.utime(folder / "job.json", (0, 0))
    with following(str(folder)):
        remains.sweep(str(tmp_path), "adapt-train-now")
        assert folder.exists()
    remains.sweep(str(tmp_path), "adapt-train-now")
    assert not folder.exists()


def test_half_written_marks_and_marks_that_go_are_nobodys(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with following(str(tmp_path)) as mine, following(str(tmp_path)) as other:
        assert not mine.is_alone()
        other.leave()
        (tmp_path / "followers" / ".x.json.partial-0").write_text("")
        assert mine.is_alone()
        # The third is there when the folder is listed; another one leaves at that moment.
        third, listed = Follower(str(tmp_path)), LocalFileSystem.ls
        third.beat()
        other.beat()

        def leaves(self: LocalFileSystem, path: str, **options: object) -> object:
            found = listed(self, path, **options)
            other.leave()
            return found

        monkeypatch.setattr(LocalFileSystem, "ls", leaves)
        assert not mine.is_alone()


def test_the_mark_of_a_killed_process_is_nobodys(tmp_path: Path) -> None:
    """Of this machine: of another one it stands until it is old."""
    words = [sys.executable, "-c", LEFT, str(tmp_path)]
    with subprocess.Popen(words, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None and other.stdout.readline() == b"here\n"
        with following(str(tmp_path)) as mine:
            assert not mine.is_alone()
            other.kill()
            other.wait()
            assert mine.is_alone()
            marks_there = (tmp_path / "followers").glob("*.json")
            (mark,) = (path for path in marks_there if path.stem != mine._name)
            marks = [mark.read_text()]
            marks.append(marks[0].replace('"machine": "', '"machine": "0'))
            marks += [
                "{}",
                "[]",
                '{"process": -1, "machine": 0}',
                marks[0].replace('"began": ', '"began": 0.'),
            ]
            alone = []
            for text in marks:
                mark.write_text(text)
                alone.append(mine.is_alone())
            assert alone == [True, False, False, False, False, False]


LEFT = """
import sys, time
from adapt.cluster.followers import following
with following(sys.argv[1]):
    print("here", flush=True)
    time.sleep(120)
"""


def test_a_job_whose_submission_was_cut_off_is_stopped_when_it_appears(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Slow(Known):
        asked = 0

        def get_job_status(self, job_id: str) -> object:
            self.asked += 1
            self.statuses |= {"a": "PENDING"} if self.asked == 2 else {}
            return super().get_job_status(job_id)

        def stop_job(self, job_id: str) -> None:
            self.statuses[job_id] = "STOPPED"

    jobs._stop(Slow(), "a")
    assert capsys.readouterr().out == "stopped a\n"
    monkeypatch.setattr(jobs, "APPEARS_S", 0.0)
    jobs._stop(Known(), "b")
    assert capsys.readouterr().out == ""


def test_a_job_whose_result_is_there_does_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    uri = f"{tmp_path}/jobs/adapt-train-{'0' * 16}"
    (tmp_path / "made").mkdir()
    (tmp_path / "made" / "model").write_text("w")
    storage.publish(tmp_path / "made", uri, {"metrics": {"loss": 0.5}})
    remote.execute("train", f"{uri}/job.json")  # there is no such description
    assert capsys.readouterr().out == f"{uri}: the result is there already\n"


def test_what_a_job_keeps_is_there_for_the_next_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    set_only(monkeypatch, {})
    for workspace in (tmp_path / "one", tmp_path / "two"):
        remote._lay_state(workspace)
        assert all((workspace / ".state" / name).is_dir() for name in remote.KEPT)
    (tmp_path / "one/.state/answers/a.jsonl").write_text("an answer")
    shutil.rmtree(tmp_path / "one")
    assert (tmp_path / "two/.state/answers/a.jsonl").read_text() == "an answer"
    # A node whose state has a place of its own keeps them there.
    monkeypatch.setenv("ADAPT_STATE", str(tmp_path / "own"))
    (tmp_path / "own/answers").mkdir(parents=True)
    remote._lay_state(tmp_path / "three")
    assert not (tmp_path / "own/answers").is_symlink()


def test_where_curves_go_is_no_part_of_the_work() -> None:
    work = {"stage": "train", "params": {"train": {"steps": 1}}, "inputs": {}, "code": "0"}
    work |= {"outside": {}}
    plain = submit.StageJob(**work, logger=None)
    logged = submit.StageJob(**work, logger={"uri": "http://a", "run_id": "1", "prefix": ""})
    assert plain.name == logged.name != submit.StageJob(**work | {"code": "1"}, logger=None).name
