"""A training run in process and on two Ray workers; a killed worker costs neither the run nor a
point of its curve.
"""

import csv
import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import psutil
import pytest

from adapt.models.load import load_model, save
from adapt.preference.fit import fit
from adapt.preference.pairs import write_pairs
from adapt.preference.settings import Config
from adapt.tracking.runs import stage_run
from adapt.tracking.store import Store, TrackingConfig
from tests.support import limits, tiny_world
from tests.support.preference_rows import lora, origin, pairs, settings

PINNED = [6.710530, 6.701889, 6.624638, 6.089343, 6.045372]
PINNED += [5.942877, 5.582509, 5.940145, 6.004924, 5.529454]
"""Losses of ten steps of `settings(steps=10)`."""


@pytest.fixture(scope="module")
def inputs(tmp_path_factory) -> Path:
    """`base/` and `pairs.parquet`, the inputs of every run here."""
    folder = tmp_path_factory.mktemp("inputs")
    save(tiny_world.model(), tiny_world.processor(), folder / "base")
    write_pairs(folder / "pairs.parquet", pairs(18), origin())
    return folder


def train(
    inputs: Path, to: Path, config: Config, log=lambda step, metrics: None
) -> dict[str, float]:
    (to / "out").mkdir(parents=True)
    return fit(config, inputs / "base", inputs / "pairs.parquet", to / "out", to / "state", log)


def test_in_process_twice_gives_the_same_bytes_and_leaves_no_state(inputs, tmp_path):
    steps: list[int] = []
    first = train(inputs, tmp_path / "a", settings(), lambda step, metrics: steps.append(step))
    second = train(inputs, tmp_path / "b", settings())
    assert first == second
    for name in ("model/model.safetensors", "history.csv"):
        assert (tmp_path / "a/out" / name).read_bytes() == (tmp_path / "b/out" / name).read_bytes()
    assert steps == [1, 2, 3, 4, 5, 6]
    assert [p.name for p in (tmp_path / "a/state").iterdir()] == ["reference"]


def losses(out: Path) -> list[float]:
    with (out / "history.csv").open() as file:
        return [float(row["loss"]) for row in csv.DictReader(file)]


def test_ten_steps_come_out_as_they_did(inputs, tmp_path):
    """A pinned trajectory: whoever changes it on purpose writes down the new one, and why, in the
    commit.
    """
    train(inputs, tmp_path, settings(steps=10))
    assert losses(tmp_path / "out") == pytest.approx(PINNED, rel=1e-4)


@pytest.mark.parametrize("changes", [dict(accumulation=4), dict(gradient_checkpointing=True)])
def test_how_a_step_is_computed_leaves_the_trajectory(inputs, tmp_path, changes):
    """18 rows and 4 a step: an epoch ends within the run, with rows left over."""
    train(inputs, tmp_path, settings(steps=10, **changes))
    assert losses(tmp_path / "out") == pytest.approx(PINNED, rel=1e-5)


def test_bf16_stays_near(inputs, tmp_path):
    train(inputs, tmp_path, settings(steps=10, precision="bf16"))
    got = losses(tmp_path / "out")
    assert got == pytest.approx(PINNED, rel=0.02)
    assert got != pytest.approx(PINNED, rel=1e-4)


def test_lora_saves_a_plain_model(inputs, tmp_path):
    """Its reference is the model without the adapter: the plain images' file is that of full
    training.
    """
    train(inputs, tmp_path, settings(lora=lora(), steps=2, gradient_checkpointing=True))
    before = load_model(inputs / "base").state_dict()
    after = load_model(tmp_path / "out/model").state_dict()
    changed = {name.split(".")[-2] for name in after if not after[name].equal(before[name])}
    attention, rest = (
        {"q_proj", "k_proj", "v_proj", "o_proj"},
        {"gate_proj", "up_proj", "down_proj"},
    )
    assert changed == attention | rest
    kept = reference(tmp_path)
    train(inputs, tmp_path / "full", settings(steps=1))
    assert reference(tmp_path / "full") == kept


def reference(to: Path) -> dict[str, list]:
    return {
        path.name: json.loads(path.read_text())["log_probs"]
        for path in (to / "state/reference").iterdir()
    }


@pytest.mark.parametrize("rank", [0, 2])
def test_interrupted_in_process_run_resumes_to_the_same_model(inputs, tmp_path, rank, monkeypatch):
    config = settings(lora=lora(rank), accumulation=2)
    train(inputs, tmp_path / "whole", config)

    def crash(step, metrics):
        if step == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(inputs, tmp_path / "cut", config, crash)
    (tmp_path / "cut/out").rmdir()
    steps: list[int] = []
    monkeypatch.setattr(
        "adapt.preference.reference._compute", lambda *_: pytest.fail("the reference is kept")
    )
    train(inputs, tmp_path / "cut", config, lambda step, metrics: steps.append(step))
    assert steps == [4, 5, 6], "resumed from the checkpoint of step 3"
    for name in ("out/model/model.safetensors", "out/history.csv"):
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "cut" / name).read_bytes()


def test_a_loss_that_is_not_finite_fails_the_run_and_keeps_the_checkpoint(
    inputs, tmp_path, monkeypatch
):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'runs.db'}")
    config = settings(learning_rate=1e30, checkpoint_every=1, accumulation=2)
    where = TrackingConfig(experiment="nan", model="nan")
    with (
        pytest.raises(FloatingPointError) as error,
        stage_run(Store(tmp_path, where), "train", config) as run,
    ):
        train(inputs, tmp_path, config, run.log_step)
    (checkpoint,) = (tmp_path / "state").glob("train-*/checkpoint")
    message = re.match(
        r"the loss is nan at step (\d), in the rows (row-\d+, )+row-\d+; ", str(error.value)
    )
    assert message and str(checkpoint) in str(error.value)
    failed = run.writer.client.get_run(run.writer.run_id)
    assert failed.info.status == "FAILED" and "the loss is nan" in failed.data.tags["adapt.error"]
    before = int(message[1]) - 1
    assert points(tmp_path / "runs.db", "train/loss") == list(range(1, before + 1))
    assert json.loads((checkpoint / "trainer_state.json").read_text())["global_step"] == before
    assert all(tensor.isfinite().all() for tensor in load_model(checkpoint).state_dict().values())
    assert not any((tmp_path / "out").iterdir())


DRIVER = """
    import sys
    from pathlib import Path
    from adapt import environment
    inputs, out = Path(sys.argv[1]), Path(sys.argv[2])
    environment.prepare(out)
    from adapt.tracking.store import StepLogger, client
    from adapt.preference.fit import fit
    from tests.preference.test_fit import slow
    from tests.support.preference_rows import settings
    uri = f"sqlite:///{out / 'runs.db'}"
    store = client(out)
    run = store.create_run("0").info.run_id
    (out / "out").mkdir()
    if __name__ == "__main__":
        config = settings(workers=2, steps=12, checkpoint_every=3)
        base, pairs = inputs / "base", inputs / "pairs.parquet"
        fit(config, base, pairs, out / "out", out / "state", slow(uri, run))
"""


class SlowLog:
    """Logs to MLflow, and takes its time: a kill can then come after a checkpoint has been
    registered.
    """

    def __init__(self, log) -> None:
        self.log = log

    def __call__(self, step, metrics) -> None:
        self.log(step, metrics)
        time.sleep(0.7)


def slow(uri: str, run: str) -> SlowLog:
    from adapt.tracking.store import StepLogger

    return SlowLog(StepLogger(uri, run))


def points(database: Path, key: str = "loss") -> list[int]:
    """Steps of a curve, as they are in the store."""
    if not database.exists():
        return []
    with sqlite3.connect(f"file:{database}?mode=ro", uri=True) as connection:
        try:
            rows = connection.execute(
                "select step from metrics where key = ? order by step", [key]
            ).fetchall()
        except sqlite3.OperationalError:  # the tables are just being made
            return []
    return [step for (step,) in rows]


def wait_for(condition, seconds: float, driver: subprocess.Popen) -> None:
    limit = time.monotonic() + seconds
    while not condition():
        assert driver.poll() is None, "the training has ended early"
        assert time.monotonic() < limit, "waited too long"
        time.sleep(0.2)


@pytest.mark.timeout(limits.WHOLE_TEST_S)
def test_killed_ray_worker_costs_no_step_of_the_curve(inputs, tmp_path):
    database = tmp_path / "runs.db"
    env = {
        **os.environ,
        "PYTHONPATH": str(Path(__file__).parents[2]),
        "MLFLOW_TRACKING_URI": f"sqlite:///{database}",
        "ADAPT_STATE": str(tmp_path / "home"),
    }
    env.pop("RAY_ADDRESS", None)
    script = tmp_path / "driver.py"
    script.write_text(textwrap.dedent(DRIVER))
    log = (tmp_path / "log.txt").open("w")
    driver = subprocess.Popen(
        [sys.executable, str(script), str(inputs), str(tmp_path)],
        env=env,
        cwd=tmp_path,
        stdout=log,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        wait_for(
            lambda: len(points(database)) >= 8, 150, driver
        )  # checkpoints of steps 3 and 6 are registered
        family = psutil.Process(driver.pid).children(recursive=True)
        workers = [p for p in family if "RayTrainWorker" in " ".join(p.cmdline())]
        assert len(workers) == 2
        workers[1].send_signal(signal.SIGKILL)
        assert driver.wait(150) == 0, (tmp_path / "log.txt").read_text()[-3000:]
    finally:
        log.close()
        for process in (
            [*psutil.Process(driver.pid).children(recursive=True), driver]
            if driver.poll() is None
            else []
        ):
            process.kill()
    assert "resuming from" in (tmp_path / "log.txt").read_text()
    assert points(database) == list(range(1, 13)), "no hole and no doubled step"
    assert (tmp_path / "out/model/model.safetensors").exists()
    # Two workers, one of them killed, and one process that takes as many passes: the same
    # trajectory.
    train(inputs, tmp_path / "alone", settings(steps=12, accumulation=2))
    assert losses(tmp_path / "out") == pytest.approx(losses(tmp_path / "alone/out"), rel=1e-5)
