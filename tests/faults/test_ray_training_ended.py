"""A training on a local Ray of which a worker is killed, and which then is told to end: nothing
runs on or listens, the run ends, and the next one goes on from the checkpoint to the same model.
"""

import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import psutil
import pytest

from adapt.cluster import local
from adapt.tracking.store import Store
from tests.faults.test_local_ray import LOOPBACK, marked
from tests.preference.test_fit import inputs, losses, points, train
from tests.support import limits, tracked
from tests.support.drivers import mortal, registered
from tests.support.faults import fault
from tests.support.preference_rows import settings
from tests.support.ray_head import without_ray

pytestmark = pytest.mark.slow

__all__ = ["inputs"]  # a fixture

HELD = (8, 14)  # steps
DRIVER = """
    import sys
    from pathlib import Path
    from adapt import environment
    inputs, out = Path(sys.argv[1]), Path(sys.argv[2])
    environment.prepare(out)
    from adapt.tracking.runs import stage_run
    from adapt.tracking.store import Store
    from adapt.preference.fit import fit
    from tests.faults.test_ray_training_ended import HeldLog
    from tests.support import tracked
    from tests.support.preference_rows import settings
    (out / "out").mkdir(exist_ok=True)
    if __name__ == "__main__":
        config = settings(workers=2, steps=18, checkpoint_every=3, w_keep=1.0)
        files = [inputs / name for name in ("base", "pairs.parquet", "plain.parquet")]
        base, pairs, plain = files
        with stage_run(Store(out, tracked.CONFIG), "train", config) as run:
            log = HeldLog(run.log_step, out)
            fit(config, base, pairs, out / "out", out / "state", log, plain=plain)
"""


class HeldLog:
    """Records points, and holds the training at two steps, the first time that it comes there: so
    it is known where it is when it is killed.
    """

    def __init__(self, log, root: Path) -> None:
        self.log, self.root = log, root

    def __call__(self, step, metrics) -> None:
        self.log(step, metrics)
        if step in HELD and not (self.root / f"past-{step}").exists():
            (self.root / f"at-{step}").touch()
            time.sleep(limits.COMMAND_S)


class Trainings:
    """The driver, as often as it is started, and what there is of its curve."""

    def __init__(self, inputs: Path, root: Path) -> None:
        self.root, self.database = root, root / "runs.db"
        script = root / "driver.py"
        script.write_text(textwrap.dedent(DRIVER))
        self.command = [sys.executable, str(script), str(inputs), str(root)]
        self.env = without_ray(
            PYTHONPATH=str(Path(__file__).parents[2]),
            MLFLOW_TRACKING_URI=f"sqlite:///{self.database}",
            ADAPT_STATE=str(root / "home"),
        )

    def start(self) -> subprocess.Popen[bytes]:
        with (self.root / "log.txt").open("wb") as log:
            return subprocess.Popen(
                self.command,
                env=self.env,
                cwd=self.root,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def said(self) -> str:
        return (self.root / "log.txt").read_text()

    def points(self) -> list[int]:
        """Steps of the curve over all runs."""
        return points(self.database, "train/loss")

    def runs(self, monkeypatch: pytest.MonkeyPatch) -> list[str]:
        """How the runs in MLflow have ended, oldest first."""
        tracked.settled(self.root, self.env)
        monkeypatch.setenv("MLFLOW_TRACKING_URI", self.env["MLFLOW_TRACKING_URI"])
        store = Store(self.root, tracked.CONFIG)
        found = store.client.search_runs([store.experiment_id], order_by=["start_time ASC"])
        return [run.info.status for run in found]

    def reaches(self, step: int, checkpoint: int, driver: subprocess.Popen[bytes]) -> None:
        """Wait until the training is held at `step`, and let it pass there the next time."""
        limit = time.monotonic() + limits.COMMAND_S
        while not (self.root / f"at-{step}").exists() or registered(self.root) < checkpoint:
            assert driver.poll() is None, self.said()[-3000:]
            assert time.monotonic() < limit, self.said()[-3000:]
            time.sleep(0.2)
        (self.root / f"past-{step}").touch()


def family(driver: subprocess.Popen[bytes]) -> list[psutil.Process]:
    return psutil.Process(driver.pid).children(recursive=True)


def open_to_others(processes: list[psutil.Process]) -> list[tuple[str, int, str]]:
    """What listens on more than the loopback interface."""
    return [
        (one.laddr.ip, one.laddr.port, " ".join(process.cmdline())[:60])
        for process in processes
        for one in process.net_connections(kind="inet")
        if one.status == psutil.CONN_LISTEN and one.laddr.ip not in LOOPBACK
    ]


@fault(
    "A worker of a training on a local Ray is killed; later the training is told to end (SIGTERM, "
    "a closed terminal)",
    keeps="the last checkpoint and every point of the curve; nothing runs on and no folder stays, "
    "30 s later; the run is KILLED, not RUNNING",
    says="train: resuming from 12 of 18 steps",
    then="goes on from the checkpoint, to the model that an undisturbed training makes",
)
@pytest.mark.timeout(limits.WHOLE_TEST_S)
def test_a_killed_worker_and_an_early_end_cost_no_step(inputs, tmp_path, monkeypatch):
    trainings = Trainings(inputs, tmp_path)
    with mortal(trainings.start()) as driver:
        # 1. A worker is killed when the checkpoints of steps 3 and 6 are registered.
        trainings.reaches(8, 6, driver)
        processes = family(driver)
        workers = [p for p in processes if "RayTrainWorker" in " ".join(p.cmdline())]
        assert len(workers) == 2 and open_to_others(processes) == []
        folders = {process.environ().get(local.MARK) for process in processes} - {None}
        workers[1].kill()
        # 2. The driver is told to end when that of step 12 is.
        trainings.reaches(14, 12, driver)
        assert "train: resuming from 6 of 18 steps" in trainings.said()
        assert open_to_others(family(driver)) == []
        driver.terminate()
        code = driver.wait(limits.STEP_S)
    assert code == 128 + signal.SIGTERM, trainings.said()[-3000:]
    # Lines of Ray's own processes begin with their name.
    own = [line for line in trainings.said().splitlines() if not line.startswith("(")]
    assert not [line for line in own if line.startswith("Traceback")], own
    (folder,) = folders
    limits.until(lambda: not marked(folder), "end of Ray's processes", limits.ORPHANS_S)
    limits.until(lambda: not Path(folder).exists(), "removal of Ray's folder", limits.ORPHANS_S)
    # 3. The next run ends well, and has done nothing twice that it need not.
    assert trainings.start().wait(limits.COMMAND_S) == 0, trainings.said()[-3000:]
    assert "train: resuming from 12 of 18 steps" in trainings.said()
    assert trainings.runs(monkeypatch) == ["KILLED", "FINISHED"]
    assert set(trainings.points()) == set(range(1, 19)), "no hole in the curve"
    assert trainings.points().count(7) == 1, "a step that was done again is there once"
    # Two workers, one of them killed, and one process that takes as many passes: the same model.
    train(inputs, tmp_path / "alone", settings(steps=18, accumulation=2, w_keep=1.0))
    assert losses(tmp_path / "out") == pytest.approx(losses(tmp_path / "alone/out"), rel=1e-5)
