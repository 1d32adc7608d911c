"""Stages as Ray jobs, against a real head: results, mistakes, crashes, kills; and what is refused
before submitting.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

import adapt
from adapt import params
from adapt.cluster import jobs, submit
from adapt.params import InputError, Settings, Shared
from adapt.tracking.store import StepLogger
from tests.support import limits
from tests.support.ray_head import RayHead, ray_head

ECHO = '''
"""A stage that copies what it reads."""

import time

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
        raise OSError("the disk is full")
    if config.mode == "hang":
        time.sleep(600)
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
from adapt.tracking.store import StepLogger

environment.prepare(Path.cwd())
content, uri, run_id = json.loads(sys.argv[1])
log = StepLogger(uri, run_id, "echo/") if uri else print
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
    assert list((storage / "jobs").glob("*/*")) == []
    inputs = {path: path.stat().st_mtime_ns for path in storage.rglob("*") if path.is_file()}
    assert len(inputs) == 3 + 2  # three files, two lists of files

    (workspace / "out/history.csv").unlink()
    second = submitted(head, workspace, "copy")
    assert second.returncode == 0, second.stderr
    assert (workspace / "out/history.csv").read_text() == "pairs"
    assert (
        "uploading" not in second.stdout.lower()
        and second.stdout.count("already on the storage") == 2
    )
    assert {
        path: path.stat().st_mtime_ns for path in storage.rglob("*") if path.is_file()
    } == inputs


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
    assert done.stderr.rstrip().endswith("OSError: the disk is full")


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


def test_without_the_right_token_one_line_says_so(head: RayHead, workspace: Path) -> None:
    done = submitted(head, workspace, "copy", RAY_AUTH_TOKEN="0" * 32)
    problem = f"RAY_API_SERVER_ADDRESS: {jobs.host(head.address)} wants its own token"
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
            "train", None, [], tmp_path / "results", tmp_path / "out", StepLogger(tracking, "1")
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
