"""A retraining whose training runs on a cluster: its driver killed, and then the flow cancelled,
with Prefect's server and worker, a Ray head and the stage itself.
"""

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
import yaml

from adapt.models.load import save
from adapt.pairs.plain import write_plain
from adapt.pairs.table import write_pairs
from tests.faults.test_services import family
from tests.support import limits, tiny_world, workspace
from tests.support.faults import fault
from tests.support.preference_rows import origin, pairs
from tests.support.ray_head import RayHead, ray_head
from tests.support.served import Served, served

pytestmark = [pytest.mark.slow, pytest.mark.timeout(limits.WHOLE_TEST_S)]

# It ends when it is told to: its steps would take hours.
TRAIN = {"workers": 1, "batch_pairs": 2, "steps": 1_000_000, "checkpoint_every": 5, "w_keep": 0.0}
STAGES = {
    "train": {"cmd": "python -m adapt.stages.train", "outs": ["results/train/model"]},
}
AT_WORK = ("-m adapt.cluster.remote", "RayTrainWorker", "TrainController")


@pytest.fixture(scope="module")
def head() -> Iterator[RayHead]:
    with ray_head(variables={"RAY_worker_niceness": "0"}) as running:
        yield running
    assert running.processes() == []


@pytest.fixture(scope="module")
def here(head: RayHead, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    root = tmp_path_factory.mktemp("served")
    with served(root, head.env, {"train": TRAIN}) as started:
        save(tiny_world.model(), tiny_world.processor(), root / "results/base/model")
        (root / "results/pairs").mkdir()
        write_pairs(root / "results/pairs/pairs.parquet", pairs(4), origin())
        write_plain(root / "results/pairs/plain.parquet", ())
        (root / "dvc.yaml").write_text(yaml.safe_dump({"stages": STAGES}))
        yield started
    workspace.all_end(root)


def at_work(head: RayHead) -> list[str]:
    """Command lines of jobs and of workers of a training."""
    return [line for line in head.commands() if any(word in line for word in AT_WORK)]


def checkpoints(root: Path) -> list[Path]:
    return [*root.glob(".state/ray/storage/jobs/*/checkpoints/**/trainer_state.json")]


def kill_all(drivers: list[psutil.Process]) -> None:
    """At once, as a power cut does: none of them sees another one's end."""
    for process in drivers:
        process.suspend()
    for process in drivers:
        with suppress(psutil.NoSuchProcess):
            process.kill()


@fault(
    "A retraining that waits for its job on a cluster is killed with all that it has started here; "
    "the next one is cancelled in Prefect",
    keeps="the job when the first is killed, its last checkpoint when the second is cancelled",
    says="job <name> on <host>, which runs already; stopped <name>",
    then="attaches to the job; when it is cancelled the job is stopped, and nothing runs on",
)
def test_a_cancelled_retraining_stops_the_job_that_a_killed_one_has_left(
    head: RayHead, here: Served
) -> None:
    # 1. It trains on the cluster.
    killed = here.start("retrain/nightly", {})
    limits.until(lambda: checkpoints(here.root), "checkpoint", limits.COMMAND_S)
    (job,) = head.jobs()
    # 2. The flow, its reaper, DVC and the stage are gone: nobody stops the job.
    (worker,) = family(here, "prefect-worker")[:1]
    kill_all(worker.children(recursive=True))
    assert here.state(killed, "CRASHED", "FAILED")
    assert head.jobs() == {job: "RUNNING"}
    # 3. The next retraining attaches to it.
    cancelled = here.start("retrain/nightly", {})
    attached = f"job {job} on"
    limits.until(lambda: "which runs already" in here.log(), "attached driver", limits.COMMAND_S)
    assert attached in here.log() and head.jobs() == {job: "RUNNING"}
    # 4. Cancelled as the button on its page does.
    here.prefect(f"flow_runs/{cancelled}/set_state", {"state": {"type": "CANCELLING"}})
    here.state(cancelled, "CANCELLED")
    limits.until(lambda: head.jobs() == {job: "STOPPED"}, f"end of {head.jobs()}")
    limits.until(lambda: not at_work(head), f"end of {at_work(head)}", limits.ORPHANS_S)
    assert f"stopped {job}" in here.log() and checkpoints(here.root)
    assert not worker.children(recursive=True)
