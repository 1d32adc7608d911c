"""What stages were made from and DVC cannot see, since it lies outside the graph.

The source of the data, the folder, hub's model or registered alias that the base comes from, a file
of rows to keep, and the files of benchmarks: a stage notes what it has read, and here it is read
again.
"""

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from adapt import addresses
from adapt.data.readers import digests, hub
from adapt.data.settings import Config as DataConfig
from adapt.data.sources import Source
from adapt.environment import state_dir
from adapt.files import storage_errors
from adapt.pairs.settings import KeepConfig
from adapt.params import InputError
from adapt.registry import registry
from adapt.registry.away import RegistryAway
from adapt.tracking.store import Store
from flows.away import Away, asking

RECORDED = {"answer": "files", "evaluate": "tables"}
"""Which files of a benchmark a stage has read, and noted in its `benchmarks.json`."""
HUB_ID = re.compile(r"[\w.-]+/[\w.-]+$")
HUB_S = 10.0  # the hub answers in less


@dataclass(frozen=True)
class Look:
    """Stages that are out of date for what lies outside, and why; and what could not be asked."""

    changed: dict[str, str]
    away: tuple[str, ...]


def look(store: Store, config: Mapping[str, Any]) -> Look:
    """Look at all that lies outside. What is elsewhere and does not answer stays as it is."""
    base = config["base"].source
    questions: list[tuple[str, Callable[[], str]]] = [
        ("data", partial(data_changed, store.root, config["data"])),
        ("base", partial(alias_moved, store, base)),
        ("base", partial(hub_moved, store.root, base)),
        ("base", partial(folder_changed, store.root, base)),
        ("pairs", partial(kept_changed, store.root, config["pairs"].keep)),
    ]
    found, away = dict[str, str](), list[str]()
    for stage, question in questions:
        try:
            found[stage] = found.get(stage) or question()
        except (Away, RegistryAway) as error:
            away.append(f"{stage}: {error}; results/{stage} stays as it is")
    changed = {**found, **benchmarks_changed(store.root)}
    return Look({stage: why for stage, why in changed.items() if why}, tuple(away))


def data_changed(root: Path, config: DataConfig) -> str:
    """Whether `data.source` holds something else than what results/data was made from.

    Empty also before there is such a result, and where the stage would be due for its parameters.
    """
    made = _noted(root, "data")
    if config.source == "scenes" or not made.get("revision"):
        return ""
    try:
        source = Source.open(config.source, root, config.pictures)
        is_same = source.named != made["source"] or source.fingerprint() == made["revision"]
    except InputError as error:
        if "://" in config.source or config.source.startswith(hub.PREFIX):
            raise Away(str(error)) from None
        raise  # a folder that is not there is a mistake
    return "" if is_same else f"{source.named} has changed"


def hub_moved(root: Path, source: str) -> str:
    """Whether the hub's model that results/base was made from has another commit now."""
    made = _noted(root, "base")
    known = made.get("commit")
    is_there = (root / source).exists()
    if made.get("source") != source or not known or is_there or not HUB_ID.match(source):
        return ""
    from huggingface_hub import HfApi, constants

    if constants.HF_HUB_OFFLINE:
        return ""
    try:
        commit = str(HfApi().model_info(source, timeout=HUB_S).sha)
    except storage_errors() as error:
        reason = addresses.shown(str(error).strip().partition("\n")[0])[:200]
        raise Away(f"{source} cannot be asked for its commit: {reason}") from None
    return "" if commit == known else f"{source} is at commit {commit[:8]}, was {known[:8]}"


def folder_changed(root: Path, source: str) -> str:
    """Whether a local folder that results/base was made from has other files now."""
    made = _noted(root, "base")
    if made.get("source") != source or not made.get("files") or not (root / source).is_dir():
        return ""
    is_same = digests.of_folder(root / source, state_dir(root) / "digests.json") == made["files"]
    return "" if is_same else f"{source} has changed"


def kept_changed(root: Path, keep: KeepConfig) -> str:
    """Whether the file of `pairs.keep.path` has other rows than those that results/pairs took.

    Empty also before there is such a result, and where the stage would be due for its parameters.
    """
    made = _noted(root, "pairs", "report.json").get("keep", {})
    if keep.file is None or made.get("path") != keep.path:
        return ""
    is_same = sha256(root / keep.file) == made["sha256"]
    return "" if is_same else f"{keep.path} has changed"


def _noted(root: Path, stage: str, name: str = "source.json") -> dict[str, Any]:
    """What a stage's results say of themselves; empty before it has run."""
    path = root / "results" / stage / name
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def alias_moved(store: Store, source: str) -> str:
    """Why stage `base` is out of date where DVC cannot see it: the alias of its source has moved.

    Empty when it is not, when the source is no alias, or nothing is behind it (the stage says so).
    """
    alias = re.fullmatch(r"models:/([^/@']+)@([\w.-]+)", source)
    if not alias:
        return ""
    with asking(store, f"about {source}"):
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
