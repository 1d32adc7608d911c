"""Few frames of ours lie between the command of the train stage and the equations of its loss."""

import json
import runpy
import sys
import traceback
from pathlib import Path

import trl

from adapt import environment
from adapt.models.load import save
from adapt.pairs.table import write_pairs
from adapt.preference import losses, trainer
from tests.support import tiny_world, workspace
from tests.support.preference_rows import ANCHOR, TRAIN, origin, pairs

MOST = 7


def own_frames() -> list[str]:
    """The callers of the caller that are files of ours, outermost first."""
    folders = (workspace.ROOT / "adapt", workspace.ROOT / "flows")
    stack = traceback.extract_stack()[:-2]
    owned = [f for f in stack if any(Path(f.filename).is_relative_to(d) for d in folders)]
    return [f"{Path(f.filename).name}: {f.name}" for f in owned]


def test_seven_frames_from_the_stage_to_the_equation(tmp_path, monkeypatch):
    for key, value in {**environment.DEFAULTS, "ADAPT_STATE": str(tmp_path / ".state")}.items():
        monkeypatch.setenv(key, value)
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path / ".state/prefect"))
    for variable in ("MLFLOW_TRACKING_URI", "RAY_API_SERVER_ADDRESS", "ADAPT_PARENT_RUN"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["train"])
    content = (workspace.ROOT / "params.yaml").read_text(encoding="utf-8")
    Path("params.yaml").write_text(content, encoding="utf-8")
    workspace.override(tmp_path / "params.yaml", {"train": TRAIN | {"steps": 1}, "anchor": ANCHOR})
    save(tiny_world.model(), tiny_world.processor(), tmp_path / "results/base/model")
    (tmp_path / "results/pairs").mkdir()
    write_pairs(tmp_path / "results/pairs/pairs.parquet", pairs(4), origin())
    frames: dict[str, list[str]] = {}
    of_trl = trl.DPOTrainer._compute_loss

    def our_equation(*args):
        frames["ours"] = own_frames()
        return losses.dpo(*args)

    def their_equation(*args):
        frames["trl"] = own_frames()
        return of_trl(*args)

    monkeypatch.setattr(trainer, "dpo", our_equation)
    monkeypatch.setattr(trl.DPOTrainer, "_compute_loss", their_equation)
    runpy.run_module("adapt.stages.train", run_name="__main__")
    assert json.loads(Path("results/train/metrics.json").read_text())["vag/loss"] > 0
    for path in (frames["ours"], frames["trl"]):
        assert path[0] == "train.py: <module>" and path[-1] == "trainer.py: _compute_loss"
        assert len(path) <= MOST, path
