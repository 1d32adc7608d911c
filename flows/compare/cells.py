"""Results by content: a stage under changed parameters, kept under a name made of its inputs.

A comparison needs the stages of `dvc.yaml` many times, under other seeds and weights, beside the
workspace's own results. The graph stays DVC's: what a stage depends on (code, parameters, earlier
stages) is read from `dvc.yaml`, and hashed into the name of its folder. What is there already is
not computed again, whichever comparison asked for it.
"""

import functools
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
from adapt.cluster import storage
from adapt.files import whole_folder
from adapt.params import Content
from adapt.progress import unlogged
from flows.compare.arms import changed


@dataclass(frozen=True)
class Cell:
    """A result and how to come by it: `make` fills a folder, once all of `after` is there."""

    title: str
    folder: Path
    make: Callable[[Path], dict[str, float]]
    after: tuple["Cell", ...] = ()

    @property
    def kind(self) -> str:
        """The first word of its title: the stage, or what is done."""
        return self.title.split()[0].rstrip(",")

    @property
    def done(self) -> bool:
        """Whether the result is there; a folder appears as a whole."""
        return self.folder.exists()

    @property
    def metrics(self) -> dict[str, float]:
        """What `make` returned."""
        return json.loads((self.folder / "metrics.json").read_text(encoding="utf-8"))

    @property
    def seconds(self) -> float:
        """How long it took when it was computed, without the cells before it."""
        return float(json.loads((self.folder / "seconds.json").read_text(encoding="utf-8")))

    def compute(self) -> None:
        """Make the result, unless it is there."""
        if self.done:
            return
        with whole_folder(self.folder) as out:
            started = time.perf_counter()
            metrics = self.make(out)
            (out / "seconds.json").write_text(json.dumps(time.perf_counter() - started) + "\n")
            (out / "metrics.json").write_text(json.dumps(metrics, indent=2, sort_keys=True) + "\n")


def stage(root: Path, content: Content, name: str, start: Cell | None = None) -> Cell:
    """The result of a stage under the parameters `content`.

    `start` is a training whose model stage `base` takes in place of `base.source`. The name of a
    result has it by its own name, which says what it was made of, and not by where it lies: the
    state folder may be moved.
    """
    entry = graph(root)[name]
    before = {needed: stage(root, content, needed, start) for needed in needs(entry)}
    named, after = content, tuple(before.values())
    title = f"{name}, seed {content['seed']}"
    if name == "base" and start is not None:
        named = changed(content, "base", {"source": f"cells/{start.folder.name}"})
        content = changed(content, "base", {"source": str(start.folder / "model")})
        after = (*after, start)
        title = f"taking the model before as base, seed {content['seed']}"
    folder = home(root) / f"{name}-{key(root, named, entry, before)}"
    read = {needed: cell.folder for needed, cell in before.items()}
    make = functools.partial(_run, dict(content), name, read)
    return Cell(title, folder, make, after)


def graph(root: Path) -> dict[str, Any]:
    """The stages of `dvc.yaml`."""
    return yaml.safe_load((root / "dvc.yaml").read_text(encoding="utf-8"))["stages"]


def needs(entry: Mapping[str, Any]) -> list[str]:
    """The stages whose results a stage reads.

    >>> needs({"deps": ["adapt/params.py", "results/data/splits", "results/base/model"]})
    ['base', 'data']
    """
    return sorted({dep.split("/")[1] for dep in entry["deps"] if dep.startswith("results/")})


def key(root: Path, content: Content, entry: Content, before: Mapping[str, Cell]) -> str:
    """Hash of a stage's code, its parameters and the names of the results it reads."""
    code = {dep for dep in entry["deps"] if not dep.startswith("results/")}
    parts: list[Any] = [{name: content[name] for name in entry["params"]}]
    for dep in sorted(code):
        files = storage.files_of(root / dep).items()
        parts.append(storage.digest({n: path for n, path in files if "__pycache__" not in n}))
    return digest(*parts, *(before[stage].folder.name for stage in needs(entry)))


def digest(*parts: Any) -> str:
    """Sixteen hex digits of anything that JSON can write."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()[:16]


def home(root: Path) -> Path:
    """Where results by content are kept: under the state folder, which nothing tracks."""
    return environment.state_dir(root) / "cells"


def _run(content: Content, name: str, before: Mapping[str, Path], out: Path) -> dict[str, float]:
    """The stage in this process, with the results it reads linked to where it looks for them."""
    config = params.load(content, name, launch.stage_module(name).Config)
    view = out.parent / f".view-{out.name}"
    shutil.rmtree(view, ignore_errors=True)
    (view / "results").mkdir(parents=True)
    try:
        for needed, path in before.items():
            (view / "results" / needed).symlink_to(path.resolve())
        run = launch.road(name, config)
        return run(config, view / "results", out, unlogged)  # its history.csv is kept
    finally:
        shutil.rmtree(view, ignore_errors=True)
