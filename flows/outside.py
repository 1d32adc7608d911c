"""What stages were made from and DVC cannot see, since it lies outside the graph.

The source of the data, the folder or registered alias that the base comes from, and the files of
benchmarks: a stage notes what it has read, and here it is read again.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from adapt.data.readers import digests
from adapt.data.settings import Config as DataConfig
from adapt.data.sources import Source
from adapt.environment import state_dir
from adapt.tracking import registry
from adapt.tracking.store import Store

RECORDED = {"answer": "files", "evaluate": "tables"}
"""Which files of a benchmark a stage has read, and noted in its `benchmarks.json`."""


def changed(store: Store, config: Mapping[str, Any]) -> dict[str, str]:
    """Stages that are out of date for what lies outside, and why."""
    base = config["base"].source
    moved = {
        "data": data_changed(store.root, config["data"]),
        "base": alias_moved(store, base) or folder_changed(store.root, base),
        **benchmarks_changed(store.root),
    }
    return {stage: why for stage, why in moved.items() if why}


def data_changed(root: Path, config: DataConfig) -> str:
    """Whether `data.source` holds something else than what results/data was made from.

    Empty also before there is such a result, and where the stage would be due for its parameters.
    """
    made = _noted(root, "data")
    if config.source == "scenes" or not made.get("revision"):
        return ""
    source = Source.open(config.source, root, config.pictures)
    is_same = source.named != made["source"] or source.fingerprint() == made["revision"]
    return "" if is_same else f"{source.named} has changed"


def folder_changed(root: Path, source: str) -> str:
    """Whether a local folder that results/base was made from has other files now."""
    made = _noted(root, "base")
    if made.get("source") != source or not made.get("files") or not (root / source).is_dir():
        return ""
    is_same = digests.of_folder(root / source, state_dir(root) / "digests.json") == made["files"]
    return "" if is_same else f"{source} has changed"


def _noted(root: Path, stage: str) -> dict[str, Any]:
    """The `source.json` of a stage's results; empty before it has run."""
    path = root / "results" / stage / "source.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def alias_moved(store: Store, source: str) -> str:
    """Why stage `base` is out of date where DVC cannot see it: the alias of its source has moved.

    Empty when it is not, when the source is no alias, or nothing is behind it (the stage says so).
    """
    alias = re.fullmatch(r"models:/([^/@']+)@([\w.-]+)", source)
    if not alias:
        return ""
    current = registry.version_behind(store, alias[1], alias[2])
    used = base_version(store.root, alias[1])
    if current is None or current == used:
        return ""
    origin = f"version {used}" if used else "something else"
    return f"{source} is version {current}, results/base was made from {origin}"


def base_version(root: Path, model: str) -> str:
    """The version of `model` that results/base came from; "" when from elsewhere."""
    made = _noted(root, "base")
    is_model = re.match(rf"models:/{re.escape(model)}[@/]", made.get("source", ""))
    return str(made.get("version") or "") if is_model else ""


def benchmarks_changed(root: Path) -> dict[str, str]:
    """Why stages are out of date whose benchmarks have other files now: stage -> reason.

    `answer` has recorded the files that it read questions and verdicts from, `evaluate` those it
    scored by.
    """
    found = {}
    for stage, kind in RECORDED.items():
        for label, entry in benchmarks(root, stage).items():
            digests = {**entry.get("verdicts", {}), **entry[kind]}.items()
            others = [path for path, digest in digests if sha256(root / path) != digest]
            if others:
                found[stage] = f"benchmark {label} has changed ({', '.join(others)})"
    return found


def benchmarks(root: Path, stage: str) -> dict[str, Any]:
    """What a stage has recorded of the benchmarks, by label; empty before it has run."""
    path = root / "results" / stage / "benchmarks.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def sha256(path: Path) -> str:
    """The hash of a file; "" where it is not there any more."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return ""
