"""A workspace whose six stages take no time, to test what flows do around stages: real git, DVC,
MLflow and gate.

`quick_stage.py` in it stands for all stages. How well the tuned model does is in `quality.txt`, a
dependency of the train stage: the share of answers without hallucination. Of the base it is 0.6.
"""

import json
import shutil
import subprocess
import sys
from pathlib import Path

from tests.support import workspace

STAGES = """
stages:
  data: {cmd: python quick_stage.py data, params: [data], outs: [results/data/splits]}
  base: {cmd: python quick_stage.py base, deps: [results/data/splits], outs: [results/base/model]}
  pairs:
    cmd: python quick_stage.py pairs
    deps: [results/base/model]
    outs: [results/pairs/pairs.parquet]
  train:
    cmd: python quick_stage.py train
    deps: [results/base/model, results/pairs/pairs.parquet, quality.txt]
    params: [train]
    outs: [results/train/model]
  answer:
    cmd: python quick_stage.py answer
    deps: [results/base/model, results/train/model]
    outs: [results/answer/responses.parquet]
  evaluate:
    cmd: python quick_stage.py evaluate
    deps: [results/answer/responses.parquet]
    outs: [results/evaluate/judged.parquet, results/evaluate/metrics.json]
"""

STAGE = """
import json, os, sys, time
from pathlib import Path
import numpy as np, pandas as pd
from safetensors.numpy import save_file

def model(name, quality):
    folder = Path("results", name, "model")
    folder.mkdir(parents=True)
    save_file({"quality": np.array([quality])}, folder / "model.safetensors")
    (folder / "quality.txt").write_text(str(quality))

def answers(arm, quality):
    wrong = np.arange(200) >= 200 * quality
    return pd.DataFrame({"arm": arm, "id": [f"q{n}" for n in range(200)],
        "image_id": [f"i{n}" for n in range(200)], "kind": "describe", "question": "describe",
        "reference": "a cat", "marked": "a cat", "covered": [["cat"]] * 200,
        "objects_mentioned": [["cat", "dog"] if w else ["cat"] for w in wrong],
        "hallucinated": [["dog"] if w else [] for w in wrong], "truth": [["cat"]] * 200})

def scores(arm, quality):
    return {f"{arm}/chair_i": 50 * (1 - quality), f"{arm}/hal": 100 * (1 - quality),
            f"{arm}/cover": 100.0, f"{arm}/mass_late_early": quality}

stage = sys.argv[1]
if Path("sleep.txt").exists():
    print("sleeping", flush=True)
    time.sleep(float(Path("sleep.txt").read_text()))
if Path(f"{stage}.mistake").exists():
    sys.exit(print(f"adapt {stage}: params.yaml: unknown key {stage}.step", file=sys.stderr) or 2)
if stage == "data":
    Path("results/data/splits").mkdir(parents=True)
    Path("results/data/splits/vocabulary.json").write_text("{}")
elif stage == "base":
    model("base", 0.6)
elif stage == "pairs":
    Path("results/pairs").mkdir(parents=True, exist_ok=True)
    Path("results/pairs/pairs.parquet").write_text(os.environ["ADAPT_PARENT_RUN"] and "pairs")
elif stage == "train":
    model("train", float(Path("quality.txt").read_text()))
elif stage == "answer":
    Path("results/answer").mkdir(parents=True, exist_ok=True)
    tables = []
    for arm, name in (("base", "base"), ("tuned", "train")):
        quality = float(Path("results", name, "model", "quality.txt").read_text())
        tables.append(answers(arm, quality).assign(quality=quality))
    pd.concat(tables, ignore_index=True).to_parquet("results/answer/responses.parquet")
else:
    Path("results/evaluate").mkdir(parents=True, exist_ok=True)
    table, metrics = pd.read_parquet("results/answer/responses.parquet"), {}
    for arm, rows in table.groupby("arm"):
        metrics |= scores(arm, rows.quality.iloc[0])
    table.drop(columns="quality").to_parquet("results/evaluate/judged.parquet")
    Path("results/evaluate/metrics.json").write_text(json.dumps(metrics))
"""


def make(root: Path, quality: float = 0.9) -> Path:
    """A new workspace in `root`, with nothing reproduced yet."""
    (root / "dvc.yaml").write_text(STAGES)
    (root / "quick_stage.py").write_text(STAGE)
    (root / ".gitignore").write_text(".state/\n/results/\n*.mistake\nsleep.txt\n")
    shutil.copy2(workspace.ROOT / "params.yaml", root)
    tuned(root, quality)
    workspace.repository(root)
    subprocess.run(
        [sys.executable, "-m", "dvc", "init", "--quiet"],
        cwd=root,
        check=True,
        env=environment(root),
    )
    return root


def tuned(root: Path, quality: float) -> None:
    """How well the next tuned model does: 0.6, as the base, to 1."""
    (root / "quality.txt").write_text(str(quality))


def going_on(root: Path, version: str) -> None:
    """Let the base be this version: then the gate knows it as the champion, and asks it nothing."""
    source = {"source": "models:/adapt@champion", "version": version}
    (root / "results" / "base" / "source.json").write_text(json.dumps(source))


def environment(root: Path) -> dict[str, str]:
    """What a command in `root` sees; the packages under test are this checkout's."""
    return workspace.environment(root) | {"PYTHONPATH": str(workspace.ROOT)}
