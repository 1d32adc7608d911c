"""Where a result comes from: the commit of the code, DVC's hashes of stages, models and data."""

import hashlib
import json
import subprocess
from pathlib import Path
from typing import Any

import yaml

SPLITS = {"train": "training", "validation": "validation", "test": "testing"}


def revision(root: Path) -> dict[str, str]:
    """Tags: the commit of the code, and whether files differ from it; empty where there is none."""
    try:
        commit = _git(root, "rev-parse", "HEAD")
        # What a reproduction itself writes is no change of the code.
        changed = _git(root, "status", "--short", "--", ".", ":!results", ":!dvc.lock")
    except (FileNotFoundError, subprocess.CalledProcessError):
        return {}
    return {"mlflow.source.git.commit": commit, "adapt.git_dirty": str(bool(changed)).lower()}


def _git(root: Path, *words: str) -> str:
    command = ["git", *words]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def stage_hash(root: Path, stage: str) -> str:
    """One hash of what DVC recorded of a stage, results included; "" when it has not run."""
    entry = _lock(root).get(stage)
    return hashlib.sha256(json.dumps(entry, sort_keys=True).encode()).hexdigest() if entry else ""


def output_hash(root: Path, path: str) -> str:
    """The md5 that `dvc.lock` has for a stage's output; "" when there is none."""
    outs = (out for entry in _lock(root).values() for out in entry.get("outs", []))
    return next((str(out["md5"]) for out in outs if out["path"] == path), "")


def datasets(root: Path, splits: str = "results/data/splits") -> list[dict[str, Any]]:
    """Lineage: the splits, their rows, and DVC's hash of their folder as the digest."""
    from pyarrow import parquet

    digest = output_hash(root, splits)
    found = []
    for name in SPLITS if digest else ():
        path = root / splits / f"{name}.parquet"
        try:
            rows = int(parquet.read_metadata(path).num_rows)
        except (OSError, ValueError):
            continue  # not there, or damaged: lineage is no condition of a retraining
        found.append({"name": name, "digest": digest, "uri": f"{splits}/{path.name}", "rows": rows})
    return found


def _lock(root: Path) -> dict[str, Any]:
    """The stages of `dvc.lock`, by name; empty before the first reproduction."""
    path = root / "dvc.lock"
    content = yaml.safe_load(path.read_text(encoding="utf-8")) if path.exists() else None
    return (content or {}).get("stages", {})
