"""The default retraining on a cluster of two nodes that share nothing but an S3 server: the outputs
of a local run, and what a lost node, a cut connection and a killed driver cost.

Both nodes are on loopback, each with folders, a token file, an address and one CPU of its own.
"""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from urllib.parse import urlsplit

import pandas as pd
import psutil
import pytest
import requests

from tests.support import bucket, limits, mlflow_server, workspace
from tests.support.drivers import mortal
from tests.support.faults import fault
from tests.support.ray_head import RayNode, ray_head, ray_node
from tests.support.wire import wire
from tests.test_end_to_end import outputs

pytestmark = [pytest.mark.slow, pytest.mark.timeout(limits.WHOLE_TEST_S)]

HEAD_IP, NODE_IP = "127.0.0.2", "127.0.0.3"
CUT_S = 30.0
SENT = ("pairs", "train", "answer")
# Sums of two threads differ from those of one in their last bits. Ray's workers are not to be last
# on a busy machine.
EVEN = {"OMP_NUM_EVEN": "1", "RAY_worker_niceness": "0"}
# A model that says something, though little that is right.
SCRATCH = workspace.SMOKE["base"]["scratch"] | {"vision_steps": 60, "width": 32}
SCRATCH |= {"language_steps": 300, "language_batch": 16}
TRAIN = {"workers": 2, "batch_pairs": 4, "steps": 40, "checkpoint_every": 5}
LOCAL = {**workspace.SMOKE, "base": {"scratch": SCRATCH}, "train": TRAIN}
FANNED = {"pairs": {"actors": 2}, "answer": {"actors": 2}}


class Cluster:
    """Two nodes, of which the second one can be lost and come again, S3 and MLflow servers."""

    def __init__(self, stack: ExitStack, folder: Path) -> None:
        self._stack, self._folder = stack, folder
        # A driver of a test that has failed; DVC's stage ends with it.
        self.clients = stack.enter_context(ExitStack())
        self.s3 = stack.enter_context(bucket.bucket(folder))
        tracking = stack.enter_context(mlflow_server.running(folder / "mlflow"))
        self.head = stack.enter_context(ray_head(1, HEAD_IP, self._nodes_own("head")))
        self.node = self.another_node()
        self.env = {**self.head.env, **self.s3, **EVEN, "MLFLOW_TRACKING_URI": tracking}

    def _nodes_own(self, name: str) -> dict[str, str]:
        home = self._folder / name
        home.mkdir(exist_ok=True)
        return {**self.s3, **EVEN, "HOME": str(home)}

    def another_node(self) -> RayNode:
        """Start a second node."""
        opened = ray_node(self.head, NODE_IP, 1, self._nodes_own("node"))
        self.node = self._stack.enter_context(opened)
        limits.until(lambda: self.alive() == 2, "second node", limits.SERVER_START_S)
        return self.node

    def _asked(self, path: str) -> requests.Response:
        token = Path(self.head.env["RAY_AUTH_TOKEN_PATH"]).read_text()
        headers = {"Authorization": f"Bearer {token}"}
        return requests.get(f"{self.head.address}{path}", headers=headers, timeout=60)

    def alive(self) -> int:
        """How many nodes the head takes for alive."""
        summary = self._asked("/nodes?view=summary").json()["data"]["summary"]
        return sum(one["raylet"].get("state") == "ALIVE" for one in summary)

    def jobs(self, prefix: str) -> dict[str, str]:
        """The jobs that were given a folder below `prefix` of the storage, and their status."""
        found = self._asked("/api/jobs/").json()
        ours = [one for one in found if f"/{prefix}/jobs/" in one["entrypoint"]]
        return {one["submission_id"]: one["status"] for one in ours}

    def at_work(self) -> list[str]:
        """Command lines of jobs, workers and actors on all nodes."""
        kinds = ("-m adapt.cluster.remote", "RayTrainWorker", "TrainController", "ray::Actor")
        processes = [*self.head.processes(), *self.node.processes()]
        lines = [" ".join(_words(one)) for one in processes]
        return [line for line in lines if any(kind in line for kind in kinds)]

    def kill_raylet(self) -> None:
        """Kill the second node's; what it has started must end by itself."""
        (raylet,) = [one for one in self.node.processes() if _is(one, "raylet/raylet")]
        raylet.kill()

    def node_ends(self) -> None:
        """The node's other processes end."""
        limits.until(lambda: not self.node.processes(), "end of the node", limits.ORPHANS_S)


def _words(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def _is(process: psutil.Process, program: str) -> bool:
    return _words(process)[:1] != [] and _words(process)[0].endswith(program)


class Driver:
    """`dvc repro` in a workspace, as often as it is started; `prefix` is its part of the bucket."""

    def __init__(self, cluster: Cluster, root: Path, prefix: str) -> None:
        self.cluster, self.root, self.prefix = cluster, root, prefix
        self.scratch = root.parent / f"{prefix}-tmp"
        self.scratch.mkdir()
        self._log = root.parent / f"{prefix}.log"
        storage = {"ADAPT_RAY_STORAGE": f"s3://{bucket.NAME}/{prefix}"}
        own = {"TMPDIR": str(self.scratch), "HOME": str(root.parent)}
        self.env = workspace.environment(root, cluster.env | storage | own)

    def start(self, *words: str, **env: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "dvc", "repro", *words]
        with self._log.open("wb") as log:
            process = subprocess.Popen(
                command,
                cwd=self.root,
                env=self.env | env,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        return self.cluster.clients.enter_context(mortal(process))

    def said(self) -> str:
        return self._log.read_text()

    def ends_well(self, process: subprocess.Popen[bytes]) -> None:
        assert process.wait(limits.RETRAINING_S) == 0, self.said()[-6000:]

    def until(self, process: subprocess.Popen[bytes], condition, event: str) -> None:
        """Wait for something that happens while the process runs."""

        def happens() -> bool:
            assert process.poll() is None, self.said()[-6000:]
            return condition()

        limits.until(happens, event, limits.COMMAND_S)

    def keys(self, part: str = "") -> list[str]:
        found = bucket.keys(self.cluster.s3, f"{self.prefix}/jobs/")
        return [key for key in found if part in key]

    def has_checkpoint(self) -> bool:
        return bool(self.keys("trainer_state.json"))

    def is_tidy(self, *stages: str) -> None:
        """One job and one result of each stage; nothing runs on, and nothing else is left."""
        jobs = self.cluster.jobs(self.prefix)
        assert sorted(name.split("-")[1] for name in jobs) == sorted(stages), jobs
        assert {*jobs.values()} == {"SUCCEEDED"}
        assert len(self.keys("/result.json")) == len(stages)
        assert not self.keys("/checkpoints/")
        limits.until(lambda: not self.cluster.at_work(), "end of all work", limits.ORPHANS_S)
        workspace.all_end(self.root)
        assert [*self.scratch.glob("adapt-*")] == []
        # What a node has fetched stays there, for whoever asks for the same.
        for node in (self.cluster.head, self.cluster.node):
            left = [path.name for path in node.folder.glob("tmp/adapt-*")]
            assert [name for name in left if not name.startswith("adapt-inputs-")] == []


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with ExitStack() as stack:
        running = Cluster(stack, tmp_path_factory.mktemp("cluster"))
        yield running
    assert running.head.processes() == [] == running.node.processes()


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The outputs of a run on this machine: one process, and two workers of a local Ray."""
    root = workspace.copy(tmp_path_factory.mktemp("local") / "ws", LOCAL)
    workspace.command(root, "dvc", "repro", env=EVEN)
    workspace.all_end(root)
    return outputs(root)


@pytest.fixture(scope="module")
def whole(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Driver:
    """A driver whose whole `dvc repro` has ended."""
    root = workspace.copy(tmp_path_factory.mktemp("whole") / "ws", LOCAL)
    workspace.override(root / "params.yaml", FANNED)
    driver = Driver(cluster, root, "whole")
    driver.ends_well(driver.start())
    return driver


@pytest.fixture
def driver(whole: Driver, tmp_path: Path, request: pytest.FixtureRequest) -> Driver:
    """Another one, in a copy of that workspace, with a part of the bucket for itself; nodes know no
    answers from before.
    """
    for kept in whole.cluster.head.folder.glob("tmp/adapt-inputs-*/state"):
        shutil.rmtree(kept)
    shutil.copytree(whole.root, tmp_path / "ws", symlinks=True)
    prefix = request.node.name.removeprefix("test_").replace("_", "-")[:30]
    return Driver(whole.cluster, tmp_path / "ws", prefix)


def test_the_outputs_are_those_of_a_local_run(local, whole):
    assert outputs(whole.root) == local
    whole.is_tidy(*SENT)
    # Nodes know nothing of the workspace: neither of its folder, nor of a file in it.
    for key in whole.keys("job.json"):
        s3 = bucket.client(whole.cluster.s3)
        said = s3.get_object(Bucket=bucket.NAME, Key=key)["Body"].read().decode()
        assert str(whole.root.parent) not in said
    before = (whole.root / "dvc.lock").read_bytes()
    whole.ends_well(whole.start())
    assert "Data and pipelines are up to date." in whole.said()
    assert (whole.root / "dvc.lock").read_bytes() == before
    whole.is_tidy(*SENT)


@fault(
    "A node of the cluster is killed while one of the training's workers is on it, and another one "
    "comes",
    keeps="the last checkpoint, on the storage",
    says="train: resuming from 5 of 40 steps",
    then="is not needed: the job goes on when the node is there, to the same model",
)
def test_a_node_is_lost_in_training(local, whole, driver):
    before = whole.root
    process = driver.start("--force", "--single-item", "train")
    driver.until(process, driver.has_checkpoint, "checkpoint")
    driver.cluster.kill_raylet()
    driver.cluster.node_ends()
    driver.cluster.another_node()
    driver.ends_well(process)
    assert "train: resuming from" in driver.said()
    # Some means, as that of entropy, differ at the last step of the epoch that was resumed.
    curves = "results/train/history.csv"
    made = outputs(driver.root)
    assert {**made, curves: ""} == {**local, curves: ""}
    losses = [pd.read_csv(driver.root / curves).loss, pd.read_csv(before / curves).loss]
    assert losses[0].equals(losses[1])
    driver.is_tidy("train")


@fault(
    "A node of the cluster is killed while one of the actors of stage `answer` is on it",
    keeps="every answer but those of the batch that it was at",
    says="answer: an actor was lost (...); another one takes over its batch",
    then="is not needed: the other actors take over, and the tables are the same",
)
def test_a_node_is_lost_in_answer(local, driver):
    process = driver.start("--force", "--single-item", "answer")

    stopped: list[psutil.Process] = []

    def is_answering() -> bool:
        """Leaves all work to the actor on the node, and stops that before it is done with it."""
        cluster = driver.cluster
        for nodes, work in ((cluster.head, "ray::Actor"), (cluster.node, "ray::Actor.work")):
            found = [one for one in nodes.processes() if work in " ".join(_words(one))]
            for one in found:
                one.suspend()
            stopped.extend(found)
        return bool(found)

    driver.until(process, is_answering, "actor at work")
    driver.cluster.kill_raylet()
    driver.until(process, lambda: "answer: an actor was lost" in driver.said(), "lost actor")
    for one in stopped:
        with suppress(psutil.NoSuchProcess):  # it may have been killed with its node
            one.resume()
    driver.cluster.node_ends()
    driver.ends_well(process)
    driver.cluster.another_node()
    assert outputs(driver.root) == local
    driver.is_tidy("answer")


@fault(
    "The job of stage `answer` is killed on the cluster",
    keeps="every batch that was done, on the disk of the node where jobs start",
    says="<job> failed on the cluster (was killed by SIGKILL), its last lines:",
    then="goes on: what was answered is not asked again, and the tables are the same",
)
def test_the_job_is_killed_in_answer(local, driver):
    words = ("--force", "--single-item", "answer")
    process = driver.start(*words)
    driver.until(process, lambda: "tuned answers test" in driver.said(), "answers of both models")
    for one in driver.cluster.head.processes():
        if "-m adapt.cluster.remote" in " ".join(_words(one)[1:]):
            one.kill()
    assert process.wait(limits.STEP_S) != 0
    assert "failed on the cluster" in driver.said()
    driver.ends_well(driver.start(*words))
    assert "base answers test" not in driver.said()
    assert outputs(driver.root) == local
    statuses = driver.cluster.jobs(driver.prefix).values()
    assert sorted(statuses) == ["FAILED", "SUCCEEDED"] and len(driver.keys("/result.json")) == 1
    limits.until(lambda: not driver.cluster.at_work(), "end of all work", limits.ORPHANS_S)
    # Its folder goes with the next job of that node, once it is a minute old.
    for left in driver.cluster.head.folder.glob("tmp/adapt-job-*"):
        os.utime(left, (0, 0))


@fault(
    "The connection between a driver and the cluster is cut for 30 s while its job runs, and "
    "neither end is told",
    keeps="the job, which knows nothing of it",
    then="is not needed: the driver asks again, and has the job's end and its result",
)
def test_the_driver_is_cut_off(local, driver):
    where = urlsplit(driver.cluster.head.address)
    with wire(where.hostname, where.port) as way:
        address = {"RAY_API_SERVER_ADDRESS": way.address}
        process = driver.start("--force", "--single-item", "train", **address)
        running = ("RUNNING",)
        driver.until(
            process, lambda: (*driver.cluster.jobs(driver.prefix).values(),) == running, "job"
        )
        way.cut()
        time.sleep(CUT_S)
        way.mend()
        driver.ends_well(process)
    assert outputs(driver.root) == local
    driver.is_tidy("train")


@fault(
    "A driver is killed, `dvc repro` and its stage together, while its job runs on the cluster",
    keeps="the job",
    says="job <name> on <host>, which runs already",
    then="finds the job and has its result; nothing is done twice",
)
def test_the_driver_is_killed(local, driver):
    process = driver.start("--force", "--single-item", "train")
    driver.until(process, driver.has_checkpoint, "checkpoint")
    for one in workspace.found(driver.root):
        one.kill()
    os.killpg(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    driver.ends_well(driver.start("--force", "--single-item", "train"))
    assert "which runs already" in driver.said() or "is there already" in driver.said()
    assert outputs(driver.root) == local
    driver.is_tidy("train")
