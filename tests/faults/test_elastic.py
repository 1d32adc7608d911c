"""A training on a cluster whose nodes come and go, with `train.workers` a range."""

import json
import subprocess
import sys
import textwrap
from contextlib import suppress
from pathlib import Path

import pytest
import torch.distributed as dist

from adapt.preference.checkpoints import SNAPSHOT
from tests.preference.test_fit import inputs, losses, train
from tests.support import limits
from tests.support.faults import fault
from tests.support.preference_rows import settings
from tests.support.ray_head import RayHead, ray_head, without_ray
from tests.support.ray_node import address, joined

pytestmark = pytest.mark.slow

__all__ = ["inputs"]  # a fixture

ROOT = Path(__file__).parents[2]
HELD = (4, 8)  # steps
DRIVER = """
    import sys
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
        files = [inputs / name for name in ("base", "pairs.parquet", "plain.parquet")]
        base, pairs, plain = files
        config = settings(workers=[1, 3], max_failures=2, **SETTINGS)
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
        if step in HELD:
            limits.until((self.root / f"past-{step}").exists, "leave to go on", limits.COMMAND_S)


def started(head: RayHead, inputs: Path, root: Path) -> subprocess.Popen[bytes]:
    """The driver, on the head's node. Its working folder is where Ray's workers find this code."""
    script = root / "driver.py"
    script.write_text(textwrap.dedent(DRIVER))
    (root / "out").mkdir()
    env = without_ray(
        PYTHONPATH=str(ROOT),
        ADAPT_STATE=str(root / "home"),
        RAY_ADDRESS=address(head),
        RAY_AUTH_MODE="token",
        RAY_AUTH_TOKEN_PATH=head.env["RAY_AUTH_TOKEN_PATH"],
    )
    command = [sys.executable, str(script), str(inputs), str(root)]
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

    def registered(self) -> int:
        """The step of the last checkpoint that Ray knows, 0 for none."""
        steps = [0]
        for snapshot in self.root.glob(f"state/train-*/train-*/{SNAPSHOT}"):
            with suppress(OSError, ValueError):  # it is just being written
                for one in json.loads(snapshot.read_text())["checkpoint_results"]:
                    state = snapshot.parent / one["checkpoint_dir_name"] / "trainer_state.json"
                    steps.append(json.loads(state.read_text())["global_step"])
        return max(steps)

    def is_held(self, step: int, workers: int) -> bool:
        """Whether so many are held at a step, with the checkpoint before it safe."""
        assert self.driver.poll() is None, self.said()[-5000:]
        return self.worlds().get(step) == workers and self.registered() == step // 3 * 3

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
    with ray_head(cpus=1) as head:
        driver = started(head, inputs, tmp_path)
        training = Elastic(tmp_path, driver)
        try:
            training.reaches(HELD[0], 1)
            with joined(head, cpus=2) as node:
                training.reaches(HELD[0], 2)
                training.passes(HELD[0])
                training.reaches(HELD[1], 2)
                node.lose()
                training.reaches(HELD[1], 1)
            training.passes(HELD[1])
            code = driver.wait(limits.COMMAND_S)
        finally:
            if driver.poll() is None:
                driver.kill()
                driver.wait()
    assert code == 0, training.said()[-5000:]
    assert training.worlds() == {1: 1, 2: 1, 3: 1, 4: 2, 5: 2, 6: 2, 7: 1, 8: 1, 9: 1}
    assert "train: workers: 2, pairs a pass: 2, passes: 1\n" in training.said()
    for step in (3, 6):
        assert f"train: resuming from {step} of 9 steps" in training.said()
    train(inputs, tmp_path / "alone", settings(accumulation=2, **SETTINGS))
    assert losses(tmp_path / "out") == pytest.approx(losses(tmp_path / "alone/out"), rel=1e-5)
    (kept,) = (tmp_path / "state").glob("train-*")
    assert sorted(path.name for path in kept.iterdir()) == ["final", "training.json"]
