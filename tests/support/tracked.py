"""Workspaces with an MLflow store of their own, and results folders small enough to check by hand.

Making an sqlite store takes MLflow seconds; it is made once per process and copied for each test.
"""

import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from contextlib import ExitStack
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from mlflow import MlflowClient

from adapt import params
from adapt.evaluation import plots
from adapt.files import locked
from adapt.tracking import journal, runs, sender
from adapt.tracking.drain import Sender
from adapt.tracking.store import Store, TrackingConfig, client, opened
from tests.support import limits

CONFIG = TrackingConfig(experiment="adapt", model="adapt")
PARAMS = (
    "seed: 7\ntrain: {beta: 0.5, steps: 2}\nevaluate: {bootstrap: 10}\nanchor: {anchor_tokens: 5}\n"
)
STAGES = {
    "data": "cached",
    "base": "cached",
    "pairs": "cached",
    "train": "ran",
    "answer": "cached",
    "evaluate": "cached",
}
OUTPUTS = {
    "data": "results/data/splits",
    "base": "results/base/model",
    "train": "results/train/model",
}
_kept: list[tempfile.TemporaryDirectory] = []  # as long as the process lives
_sending = ExitStack()  # the lock of the workspace made last


@cache
def _empty_store() -> Path:
    _kept.append(tempfile.TemporaryDirectory())
    root = Path(_kept[-1].name)
    client(root)
    return root / ".state"


def workspace(root: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """A folder with params.yaml, dvc.lock and an empty store; the environment has no say in it."""
    for name in (
        "MLFLOW_TRACKING_URI",
        "PREFECT_API_URL",
        "ADAPT_STATE",
        "ADAPT_PARENT_RUN",
        "ADAPT_FLOW_RUN",
        "DVC_EXP_NAME",
    ):
        monkeypatch.delenv(name, raising=False)
    shutil.copytree(_empty_store(), root / ".state")
    (root / "params.yaml").write_text(PARAMS)
    lock = {"schema": "2.0", "stages": {}}
    for number, (stage, path) in enumerate(OUTPUTS.items()):
        lock["stages"][stage] = {
            "cmd": stage,
            "outs": [{"path": path, "md5": f"{number:032x}.dir"}],
        }  # type: ignore[index]
    (root / "dvc.lock").write_text(json.dumps(lock))
    alone(root)
    return Store(root, CONFIG)


def alone(root: Path) -> None:
    """Let this process be the sender of a workspace: no other is started, to outlive the test."""
    _sending.close()
    _sending.enter_context(locked(sender.lock(root), wait=False))


def sent(store: Store) -> list[Path]:
    """Bring what is journaled to MLflow, in this process; returns the journals that are left."""
    return Sender(store.root, _stores={store.config.experiment: store}).once()


def settled(root: Path, env: Mapping[str, str], seconds: float = limits.COMMAND_S) -> None:
    """Let the sender that other processes have started send all, and wait until it has ended."""
    flush = [sys.executable, "-m", "adapt.tracking", "flush", "--seconds", str(seconds)]
    subprocess.run(flush, cwd=root, env=env, check=True, stdout=subprocess.DEVNULL)
    home = Path(env.get("ADAPT_STATE") or root / ".state") / "tracking"
    limit = time.monotonic() + seconds
    while any(map(journal.is_locked, home.glob("sender*.lock"))):
        assert time.monotonic() < limit, "the sender does not end"
        time.sleep(0.1)


def retraining(store: Store, name: str = "tonight") -> str:
    """The id of the open run of a retraining, which MLflow has."""
    run_id = runs.start_retraining(store, name, {})
    sent(store)
    return run_id


def store_in(folder: Path) -> MlflowClient:
    """A client of the SQLite store in `folder`, which is made, empty, where it is missing."""
    if not folder.exists():
        shutil.copytree(_empty_store() / "mlflow", folder)
    return opened(f"sqlite:///{folder}/mlflow.db")


def openings(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """A list that grows by the workspace's root whenever its MLflow store is opened."""
    roots: list[Path] = []

    def counted(root: Path) -> Any:
        roots.append(root)
        return client(root)

    monkeypatch.setattr("adapt.tracking.store.client", counted)
    return roots


def results(root: Path) -> Path:
    """`results/` as the stages leave it: two training steps, two arms, one picture of each kind."""
    folder = root / "results"
    for stage, metrics in {
        "data": {"rows": 3},
        "base": {"hal": 25.0},
        "pairs": {"pairs": 2},
    }.items():
        (folder / stage).mkdir(parents=True)
        (folder / stage / "metrics.json").write_text(json.dumps(metrics))
    (folder / "data" / "splits").mkdir()
    for rows, split in enumerate(("train", "validation", "test"), start=1):
        pd.DataFrame({"id": range(rows)}).to_parquet(
            folder / "data" / "splits" / f"{split}.parquet"
        )
    (folder / "train").mkdir()
    (folder / "train" / "history.csv").write_text("step,loss,margin\n1,0.7,\n2,0.5,0.25\n")
    (folder / "train" / "metrics.json").write_text(json.dumps({"loss": 0.6, "pairs": 2}))
    evaluate = folder / "evaluate"
    evaluate.mkdir()
    metrics = {
        "base/hal": 50.0,
        "tuned/hal": 0.0,
        "base/cover": 100.0,
        "tuned/cover": 90.0,
        "tuned/length": 5.0,
    }
    (evaluate / "metrics.json").write_text(json.dumps(metrics))
    (evaluate / "curves.csv").write_text(
        "arm,signal,split,position,mean,low,high,n\n"
        "tuned,mass,all,0,0.8,0.7,0.9,9\ntuned,mass,all,1,0.7,0.6,0.8,9\ntuned,mass,grounded,1,0.75,0.6,0.8,9\n"
    )
    plots.save(plots.before_after_figure(metrics), evaluate / "figures" / "before_after.png")
    shutil.copytree(evaluate / "figures", evaluate / "panels")
    (evaluate / "panels" / "before_after.png").rename(evaluate / "panels" / "scene#1.png")
    responses().to_parquet(evaluate / "judged.parquet")
    return folder


def responses() -> pd.DataFrame:
    """Two pictures described by two arms: base hallucinates in one of two, tuned in none but misses
    an object.
    """
    rows = [
        ("base", "a", "describe", ["dog"], ["house"], ["house"], "a house and a **dog**"),
        ("base", "b", "describe", [], ["tree", "car"], ["tree", "car"], "a tree and a car"),
        ("base", "q", "exists", [], [], [], "no"),
        ("tuned", "a", "describe", [], ["house"], ["house"], "a house"),
        ("tuned", "b", "describe", [], ["tree"], ["tree", "car"], "a tree"),
        ("tuned", "q", "exists", [], [], [], "no"),
    ]
    table = pd.DataFrame(
        rows, columns=["arm", "id", "kind", "hallucinated", "covered", "truth", "marked"]
    )
    table["image_id"] = table["id"].replace("q", "a")
    return table.assign(
        question="what is there?", reference="a house", tokens=np.arange(len(table))
    )


def config_error() -> params.InputError:
    """A user's mistake whose message carries a password."""
    return params.InputError("base.source: https://me:hunter2@host/model?token=abc not found")
