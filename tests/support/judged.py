"""Workspaces as the stages leave them for the gate: a tuned model, judged answers of arms."""

import json
from pathlib import Path

import pandas as pd

from adapt.registry import registry

IMAGES = 200


def train(root: Path, weights: str) -> None:
    """A tuned model, and its hash in dvc.lock."""
    folder = root / registry.MODEL
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.safetensors").write_text(weights)
    lock = json.loads((root / "dvc.lock").read_text())
    lock["stages"]["train"]["outs"] = [{"path": registry.MODEL, "md5": f"{weights}.dir"}]
    (root / "dvc.lock").write_text(json.dumps(lock))


def evaluated(root: Path, **hal: float) -> None:
    """What stage `evaluate` leaves, for arms that hallucinate in a share of their answers."""
    folder = root / "results" / "evaluate"
    folder.mkdir(parents=True, exist_ok=True)
    tables, metrics = [answers(arm, share) for arm, share in hal.items()], {}
    for arm, share in hal.items():
        metrics |= {f"{arm}/{key}": value for key, value in scores(share).items()}
    pd.concat(tables).to_parquet(folder / "judged.parquet")
    (folder / "metrics.json").write_text(json.dumps(metrics))


def answers(arm: str, share: float) -> pd.DataFrame:
    ids = [f"i{n}" for n in range(IMAGES)]
    absent = [["dog"] if n < share * IMAGES else [] for n in range(IMAGES)]
    columns = {"arm": arm, "id": ids, "image_id": ids, "kind": "describe", "hallucinated": absent}
    named = [["cat", *wrong] for wrong in absent]
    columns = {**columns, "objects_mentioned": named, "covered": [["cat"]] * IMAGES}
    return pd.DataFrame({**columns, "truth": [["cat"]] * IMAGES})


def scores(share: float) -> dict[str, float]:
    return {"chair_i": 50 * share, "hal": 100 * share, "cover": 100.0, "mass_late_early": 0.9}
