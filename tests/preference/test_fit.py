"""A training run in process and on two Ray workers; a killed worker costs neither the run nor a point of its curve."""

import io
import os
import signal
import sqlite3
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import psutil
import pytest

from adapt.attention.anchor import AnchorConfig
from adapt.models.load import load_model, save
from adapt.preference.fit import fit
from adapt.preference.pairs import Pair, write_pairs
from adapt.preference.settings import Config
from tests import tiny_world

SETTINGS = dict(workers=0, max_failures=1, batch_pairs=4, steps=6, learning_rate=1e-3, beta=0.5, w_vag=1.0, w_dpo=0.5,
                w_sft=1.0, w_attn=0.1, attn_layers=(), noise=0.3, lora_rank=0, checkpoint_every=3, log_every=1,
                anchor=AnchorConfig(tokens=3, noise_images=2), seed=1)  # fmt: skip


def settings(**changes) -> Config:
    return Config(**{**SETTINGS, **changes})


@pytest.fixture(scope="module")
def inputs(tmp_path_factory) -> Path:
    """`base/` and `pairs.parquet`, the inputs of every run here."""
    folder = tmp_path_factory.mktemp("inputs")
    save(tiny_world.model(), tiny_world.processor(), folder / "base")
    pairs = []
    for i in range(16):
        png = io.BytesIO()
        tiny_world.picture(i).save(png, "PNG")
        pairs.append(
            Pair(id=f"row-{i}", kind="describe", image=png.getvalue(), question=tiny_world.QUESTIONS[i % 2],
                 chosen=tiny_world.ANSWERS[i % 2], rejected=tiny_world.ANSWERS[(i + 1) % 2], chosen_score=1.0,
                 rejected_score=0.0, anchor=(1 / 16,) * 16, grid=(4, 4))
        )  # fmt: skip
    write_pairs(folder / "pairs.parquet", pairs)
    return folder


def train(inputs: Path, to: Path, config: Config, log=lambda step, metrics: None) -> dict[str, float]:
    (to / "out").mkdir(parents=True)
    return fit(config, inputs / "base", inputs / "pairs.parquet", to / "out", to / "state", log)


def test_in_process_twice_gives_the_same_bytes_and_leaves_no_state(inputs, tmp_path):
    seen: list[int] = []
    first = train(inputs, tmp_path / "a", settings(), lambda step, metrics: seen.append(step))
    second = train(inputs, tmp_path / "b", settings())
    assert first == second
    for name in ("model/model.safetensors", "history.csv"):
        assert (tmp_path / "a/out" / name).read_bytes() == (tmp_path / "b/out" / name).read_bytes()
    assert seen == [1, 2, 3, 4, 5, 6]
    assert not any((tmp_path / "a/state").iterdir())


def test_lora_saves_a_plain_model(inputs, tmp_path):
    train(inputs, tmp_path, settings(lora_rank=2, steps=2))
    before, after = load_model(inputs / "base").state_dict(), load_model(tmp_path / "out/model").state_dict()
    changed = {name.split(".")[-2] for name, tensor in after.items() if not tensor.equal(before[name])}
    assert changed == {"q_proj", "k_proj", "v_proj", "o_proj"}


def test_interrupted_in_process_run_resumes_to_the_same_model(inputs, tmp_path):
    train(inputs, tmp_path / "whole", settings())

    def crash(step, metrics):
        if step == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(inputs, tmp_path / "cut", settings(), crash)
    (tmp_path / "cut/out").rmdir()
    seen: list[int] = []
    train(inputs, tmp_path / "cut", settings(), lambda step, metrics: seen.append(step))
    assert seen == [4, 5, 6], "resumed from the checkpoint of step 3"
    name = "out/model/model.safetensors"
    assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "cut" / name).read_bytes()


DRIVER = """
    import sys
    from pathlib import Path
    from adapt import environment
    inputs, out = Path(sys.argv[1]), Path(sys.argv[2])
    environment.prepare(out)
    from adapt.store import StepLogger, client
    from adapt.preference.fit import fit
    from tests.preference.test_fit import settings, slow
    uri = f"sqlite:///{out / 'runs.db'}"
    store = client(out)
    run = store.create_run("0").info.run_id
    (out / "out").mkdir()
    if __name__ == "__main__":
        config = settings(workers=2, steps=12, checkpoint_every=3)
        fit(config, inputs / "base", inputs / "pairs.parquet", out / "out", out / "state", slow(uri, run))
"""


class SlowLog:
    """Logs to MLflow, and takes its time: a kill can then come after a checkpoint has been registered."""

    def __init__(self, log) -> None:
        self.log = log

    def __call__(self, step, metrics) -> None:
        self.log(step, metrics)
        time.sleep(0.7)


def slow(uri: str, run: str) -> SlowLog:
    from adapt.store import StepLogger

    return SlowLog(StepLogger(uri, run))


def points(database: Path) -> list[int]:
    """Steps of the loss curve, as they are in the store."""
    if not database.exists():
        return []
    with sqlite3.connect(f"file:{database}?mode=ro", uri=True) as connection:
        try:
            rows = connection.execute("select step from metrics where key = 'loss' order by step").fetchall()
        except sqlite3.OperationalError:  # the tables are just being made
            return []
    return [step for (step,) in rows]


def wait_for(condition, seconds: float, driver: subprocess.Popen) -> None:
    limit = time.monotonic() + seconds
    while not condition():
        assert driver.poll() is None, "the training has ended early"
        assert time.monotonic() < limit, "waited too long"
        time.sleep(0.2)


@pytest.mark.timeout(280)
def test_killed_ray_worker_costs_no_step_of_the_curve(inputs, tmp_path):
    database = tmp_path / "runs.db"
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "MLFLOW_TRACKING_URI": f"sqlite:///{database}",
           "ADAPT_STATE": str(tmp_path / "home")}  # fmt: skip
    env.pop("RAY_ADDRESS", None)
    script = tmp_path / "driver.py"
    script.write_text(textwrap.dedent(DRIVER))
    log = (tmp_path / "log.txt").open("w")
    driver = subprocess.Popen([sys.executable, str(script), str(inputs), str(tmp_path)], env=env, cwd=tmp_path,
                              stdout=log, stderr=subprocess.STDOUT, start_new_session=True)  # fmt: skip
    try:
        wait_for(lambda: len(points(database)) >= 8, 150, driver)  # checkpoints of steps 3 and 6 are registered
        family = psutil.Process(driver.pid).children(recursive=True)
        workers = [p for p in family if "RayTrainWorker" in " ".join(p.cmdline())]
        assert len(workers) == 2
        workers[1].send_signal(signal.SIGKILL)
        assert driver.wait(150) == 0, (tmp_path / "log.txt").read_text()[-3000:]
    finally:
        log.close()
        for process in [*psutil.Process(driver.pid).children(recursive=True), driver] if driver.poll() is None else []:
            process.kill()
    assert "resuming from" in (tmp_path / "log.txt").read_text()
    assert points(database) == list(range(1, 13)), "no hole and no doubled step"
    assert (tmp_path / "out/model/model.safetensors").exists()
    rows = (tmp_path / "out/history.csv").read_text().splitlines()
    columns = rows[0].split(",")
    losses = [float(line.split(",")[columns.index("loss")]) for line in rows[1:]]
    assert len(losses) == 12
    # What a run from the base would have at step 9 is far from this: the weights were resumed too.
    assert losses[-1] < losses[0] - 0.1
