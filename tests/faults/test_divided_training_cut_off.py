"""A training of a model that is divided among two workers of a local Ray is cut off, and one worker
goes on with it.
"""

import json
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
import torch

from adapt.models.load import load_model
from tests.preference.test_fit import inputs, losses, train
from tests.support import limits
from tests.support.faults import fault
from tests.support.preference_rows import lora, settings
from tests.support.ray_head import without_ray

pytestmark = pytest.mark.slow

__all__ = ["inputs"]  # a fixture

STEPS, CUT = 6, 5
DRIVER = """
    import json, sys
    from pathlib import Path
    from adapt import environment
    inputs, out, asked = Path(sys.argv[1]), Path(sys.argv[2]), json.loads(sys.argv[3])
    environment.prepare(out)
    from adapt.preference.fit import fit
    from tests.faults.test_divided_training_cut_off import CutLog
    from tests.support.preference_rows import settings
    if __name__ == "__main__":
        files = [inputs / name for name in ("base", "pairs.parquet", "plain.parquet")]
        base, pairs, plain = files
        log = CutLog(asked.pop("cut"))
        config = settings(**asked)
        (out / "out").mkdir(exist_ok=True)
        fit(config, base, pairs, out / "out", out / "state", log, plain=plain, splits=inputs)
"""


class CutLog:
    """Fails at a step, when Ray has had the time to register the checkpoint before; 0: never."""

    def __init__(self, at: int) -> None:
        self.at = at

    def __call__(self, step: int, metrics: dict[str, float]) -> None:
        if step == self.at:
            time.sleep(10)
            raise RuntimeError("this training is cut off")


def driven(inputs: Path, root: Path, asked: dict[str, object]) -> tuple[int, str]:
    """How `fit` ends in a process of its own, and what it says."""
    script = root / "driver.py"
    script.write_text(textwrap.dedent(DRIVER))
    env = without_ray(
        PYTHONPATH=str(Path(__file__).parents[2]),
        MLFLOW_TRACKING_URI=f"sqlite:///{root / 'runs.db'}",
        ADAPT_STATE=str(root / "home"),
    )
    command = [sys.executable, str(script), str(inputs), str(root), json.dumps(asked)]
    ended = subprocess.run(
        command, env=env, cwd=root, capture_output=True, text=True, timeout=limits.COMMAND_S
    )
    return ended.returncode, ended.stderr


@fault(
    "A training with `train.shard: fsdp` on two workers is cut off",
    keeps="the last checkpoint, a share of each worker",
    says="train: resuming from 3 of 6 steps",
    then="goes on with as many workers as are asked for then, to the model that one process makes",
)
@pytest.mark.timeout(limits.WHOLE_TEST_S)
@pytest.mark.parametrize("changes", [{}, {"lora": lora(2)}], ids=["full", "lora"])
def test_one_worker_goes_on_where_two_were(inputs, tmp_path, changes):
    asked = dict(shard="fsdp", steps=STEPS, w_keep=1.0, max_failures=0, **changes)
    code, said = driven(inputs, tmp_path, asked | {"workers": 2, "cut": CUT})
    assert code != 0 and "this training is cut off" in said, said[-3000:]
    code, said = driven(inputs, tmp_path, asked | {"workers": 1, "cut": 0})
    assert code == 0 and "train: resuming from 3 of 6 steps" in said, said[-3000:]
    train(inputs, tmp_path / "alone", settings(steps=STEPS, w_keep=1.0, **changes))
    assert losses(tmp_path / "out") == pytest.approx(losses(tmp_path / "alone/out"), rel=1e-5)
    found, expected = (
        load_model(folder / "out/model").state_dict() for folder in (tmp_path, tmp_path / "alone")
    )
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
