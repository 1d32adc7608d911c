"""Results by content: one run of a stage under changed parameters, kept under a name that depends on its inputs alone.

A comparison needs the stages of `dvc.yaml` many times, under other seeds and weights, beside the workspace's own
results. The graph stays DVC's: what a stage depends on (code, parameters, earlier stages) is read from `dvc.yaml`, and
hashed into the name of its folder. What is there already is not computed again, whichever comparison asked for it.
"""

import hashlib
import json
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from adapt import environment, launch, params

Log = Callable[[int, Mapping[str, float]], None]


@dataclass(frozen=True)
class Cell:
    """A finished stage: its folder, and the folders of the stages before it by name."""

    stage: str
    folder: Path
    before: Mapping[str, Path]

    @property
    def seconds(self) -> float:
        """How long the stage took when it was computed, without the stages before it."""
        return float(json.loads((self.folder / "seconds.json").read_text(encoding="utf-8")))

    @property
    def all(self) -> dict[str, Path]:
        """This stage's folder and those before it, by stage."""
        return {**self.before, self.stage: self.folder}


def run(root: Path, content: Mapping[str, Any], stage: str, log: Log) -> Cell:
    """The stage under the parameters `content`, and before it every stage it needs, computed where it is not kept."""
    entry = graph(root)[stage]
    before: dict[str, Path] = {}
    for needed in needs(entry):
        before |= run(root, content, needed, log).all
    folder = home(root) / f"{stage}-{key(root, content, entry, before)}"
    if not (folder / "metrics.json").exists():
        _compute(content, stage, before, folder, log)
    return Cell(stage, folder, before)


def graph(root: Path) -> dict[str, Any]:
    """The stages of `dvc.yaml`."""
    return yaml.safe_load((root / "dvc.yaml").read_text(encoding="utf-8"))["stages"]


def needs(entry: Mapping[str, Any]) -> list[str]:
    """The stages whose results a stage reads.

    >>> needs({"deps": ["adapt/params.py", "results/data/splits", "results/base/model"]})
    ['base', 'data']
    """
    return sorted({dep.split("/")[1] for dep in entry["deps"] if dep.startswith("results/")})


def key(root: Path, content: Mapping[str, Any], entry: Mapping[str, Any], before: Mapping[str, Path]) -> str:
    """Hash of a stage's code, its parameters and the names of the results it reads."""
    parts: list[Any] = [{name: content[name] for name in entry["params"]}]
    parts += [hashlib.sha256((root / dep).read_bytes()).hexdigest() for dep in entry["deps"] if dep.endswith(".py")]
    return digest(*parts, *(before[stage].name for stage in needs(entry)))


def digest(*parts: Any) -> str:
    """Sixteen hex digits of anything that JSON can write."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()[:16]


def home(root: Path) -> Path:
    """Where results by content are kept: under the state folder, which nothing tracks."""
    return environment.state_dir(root) / "cells"


def _compute(content: Mapping[str, Any], stage: str, before: Mapping[str, Path], folder: Path, log: Log) -> None:
    module = launch.stage_module(stage)
    config = params.load(content, stage, module.Config)
    view = folder.parent / f".view-{folder.name}"
    shutil.rmtree(view, ignore_errors=True)
    (view / "results").mkdir(parents=True)
    try:
        for name, path in before.items():
            (view / "results" / name).symlink_to(path.resolve())
        with launch.published(folder) as out:
            started = time.perf_counter()
            metrics = module.run(config, view / "results", out, log)
            (out / "seconds.json").write_text(json.dumps(time.perf_counter() - started) + "\n")
            (out / "metrics.json").write_text(json.dumps(metrics, indent=2, sort_keys=True) + "\n")
    finally:
        shutil.rmtree(view, ignore_errors=True)
