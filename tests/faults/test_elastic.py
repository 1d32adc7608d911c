"""A training on a cluster whose nodes come and go, with `train.workers` a range."""

import json
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch.distributed as dist

from tests.preference.test_fit import inputs, losses, train
from tests.support import limits, slow_store
from tests.support.drivers import mortal, registered
from tests.support.faults import fault
from tests.support.preference_rows import settings
from tests.support.ray_head import RayHead, ray_head, ray_node, without_ray

pytestmark = pytest.mark.slow

__all__ = ["inputs", "slow_store"]  # a fixture; a protocol, for the workers

ROOT = Path(__file__).parents[2]
HELD = (4, 8)  # steps
HEAD_IP, NODE_IP = "127.0.0.2", "127.0.0.3"
DRIVER = """
    import json, sys
    from pathlib import Path
    from adapt import environment
    inputs, out = Path(sys.argv[1]), Path(sys.argv[2])
    environment.prepare(out)
    from adapt.cluster import elastic
    from adapt.preference.fit import fit
    from tests.faults.test_elastic import HeldLog, SETTINGS
    from tests.support.preference_rows import settings
    if __name__ == "__main__":
        elastic.LOOK_S = 2.0
        (out / "out").mkdir(exist_ok=True)
        files = [inputs / name for name in ("base", "pairs.parquet", "plain.parquet")]
        base, pairs, plain = files
        config = settings(**SETTINGS, **json.loads(sys.argv[3]))
        fit(config, base, pairs, out / "out", out / "state", HeldLog(out), plain=plain)
"""
SETTINGS = dict(steps=9, checkpoint_every=3, w_keep=1.0)


class HeldLog:
    """Writes down how many workers make each step, and is held at some until it may pass."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def __call__(self, step: int, metrics: dict[str, float]) -> None:
        with (self.root / "worlds.txt").open("a") as file:
            file.write(f"{step} {dist.get_world_size()}\n")
        if step in HELD and not (self.root / "free").exists():
            limits.until((self.root / f"past-{step}").exists, "leave to go on", limits.COMMAND_S)


def started(
    head: RayHead, inputs: Path, root: Path, asked: dict[str, object], **more: str
) -> subprocess.Popen[bytes]:
    """The driver, on the head's node. Its working folder is where Ray's workers find this code."""
    script = root / "driver.py"
    script.write_text(textwrap.dedent(DRIVER))
    env = without_ray(
        **more,
        PYTHONPATH=str(ROOT),
        ADAPT_STATE=str(root / "home"),
        RAY_ADDRESS=head.gcs,
        RAY_AUTH_MODE="token",
        RAY_AUTH_TOKEN_PATH=head.env["RAY_AUTH_TOKEN_PATH"],
    )
    command = [sys.executable, str(script), str(inputs), str(root), json.dumps(asked)]
    with (root / "log.txt").open("wb") as log:
        return subprocess.Popen(command, env=env, cwd=ROOT, stdout=log, stderr=log)


class Elastic:
    """What there is to see of the training in `root`."""

    def __init__(self, root: Path, driver: subprocess.Popen[bytes]) -> None:
        self.root, self.driver = root, driver

    def said(self) -> str:
        return (self.root / "log.txt").read_text()

    def worlds(self) -> dict[int, int]:
        """How many workers made each step, the last time that it was made."""
        file = self.root / "worlds.txt"
        lines = file.read_text().splitlines() if file.exists() else []
        return {int(step): int(count) for step, count in map(str.split, lines)}

    def has_made(self, step: int) -> int | None:
        """How many workers have; fails where the driver has ended."""
        assert self.driver.poll() is None, self.said()[-5000:]
        return self.worlds().get(step)

    def is_held(self, step: int, workers: int) -> bool:
        """Whether so many are held at a step, with the checkpoint before it safe."""
        return self.has_made(step) == workers and registered(self.root) == step // 3 * 3

    def reaches(self, step: int, workers: int) -> None:
        event = f"step {step} by {workers}"
        limits.until(lambda: self.is_held(step, workers), event, limits.COMMAND_S)

    def passes(self, step: int) -> None:
        (self.root / f"past-{step}").touch()


@fault(
    "A node joins the cluster in a training with `train.workers` [1, 3], and is lost later",
    keeps="the last checkpoint, the rows of each step and their order",
    says="train: workers: 2, pairs a pass: 2, passes: 1; train: resuming from 3 of 9 steps",
    then="(the same run) goes on with the node, later without, to what one process makes",
)
@pytest.mark.timeout(limits.WHOLE_TEST_S)
def test_nodes_come_and_go(inputs, tmp_path):
    """Of three CPUs two are taken: four pairs do not divide into three parts."""
    with ray_head(1, HEAD_IP) as head:
        asked = {"workers": [1, 3], "max_failures": 2}
        with mortal(started(head, inputs, tmp_path, asked)) as driver:
            training = Elastic(tmp_path, driver)
            training.reaches(HELD[0], 1)
            with ray_node(head, NODE_IP, cpus=2) as node:
                training.reaches(HELD[0], 2)
                training.passes(HELD[0])
                training.reaches(HELD[1], 2)
                node.lose()
                training.reaches(HELD[1], 1)
            training.passes(HELD[1])
            code = driver.wait(limits.COMMAND_S)
    assert code == 0, training.said()[-5000:]
    assert training.worlds() == {1: 1, 2: 1, 3: 1, 4: 2, 5: 2, 6: 2, 7: 1, 8: 1, 9: 1}
    assert "train: workers: 2, pairs a pass: 2, passes: 1\n" in training.said()
    for step in (3, 6):
        assert f"train: resuming from {step} of 9 steps" in training.said()
    train(inputs, tmp_path / "alone", settings(accumulation=2, **SETTINGS))
    assert losses(tmp_path / "out") == pytest.approx(losses(tmp_path / "alone/out"), rel=1e-5)
    (kept,) = (tmp_path / "state").glob("train-*")
    assert sorted(path.name for path in kept.iterdir()) == ["final", "training.json"]


@fault(
    "The storage of a cluster refuses a checkpoint while it is uploaded beside the training",
    keeps="the checkpoint before",
    says="ADAPT_RAY_STORAGE: …/checkpoints: a checkpoint could not be uploaded ([Errno 5] the "
    "bucket is away); the one before is kept; run again to go on from there",
    then="goes on from the checkpoint before, to the same model",
)
@pytest.mark.timeout(limits.WHOLE_TEST_S)
def test_checkpoints_travel_beside_the_training_and_one_that_fails_costs_none(inputs, tmp_path):
    for name in ("store", "free", "hold", "fail"):
        (tmp_path / name).mkdir()
    how = {"workers": 2, "max_failures": 0}
    storage = {"ADAPT_RAY_STORAGE": f"slow://{tmp_path}/store"}
    with ray_head(2, HEAD_IP) as head:
        with mortal(started(head, inputs, tmp_path, how, **storage)) as driver:
            training = Elastic(tmp_path, driver)
            # 1. Steps go on while the first checkpoint is held on its way, but not to a third one.
            limits.until(lambda: training.has_made(6), "the sixth step", limits.COMMAND_S)
            (tmp_path / "hold").rmdir()
            # 2. The first checkpoint arrives, the second one does not.
            code = driver.wait(limits.COMMAND_S)
        assert code == 1, training.said()[-5000:]
        own = [line for line in training.said().splitlines() if not line.startswith("(")]
        assert "ADAPT_RAY_STORAGE: " in own[-1] and own[-1].endswith(
            "run again to go on from there"
        )
        # 3. The next run goes on from the first.
        (tmp_path / "fail").rmdir()
        with mortal(started(head, inputs, tmp_path, how, **storage)) as driver:
            assert driver.wait(limits.COMMAND_S) == 0, training.said()[-5000:]
    assert "train: resuming from 3 of 9 steps" in training.said()
    train(inputs, tmp_path / "alone", settings(accumulation=2, **SETTINGS))
    assert losses(tmp_path / "out") == pytest.approx(losses(tmp_path / "alone/out"), rel=1e-5)
    left = [path for path in (tmp_path / "store").rglob("checkpoint_20*")]
    assert not left, "a run that has ended leaves no checkpoint on the storage"
